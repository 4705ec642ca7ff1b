"""Whether a topic binding matches, as kombu understands its wildcards, in bounded time.

kombu makes a regular expression of a binding, and six `#` in one keep it busy for hours over a
routing key made for that: a single row could have both.
"""


def matches(binding: str, routing_key: str) -> bool:
    """Whether a message goes there: `*` stands for a word, `#` for any text, also for none."""
    ends = {0}  # where in the routing key what has been read of the binding may end
    for number, word in enumerate(binding.split(".")):
        if number:
            ends = {end + 1 for end in ends if routing_key[end : end + 1] == "."}
        if not ends:
            return False
        if word == "#":
            ends = set(range(min(ends), len(routing_key) + 1))
        elif word == "*":
            ends = {end for start in ends for end in _within_word(routing_key, start)}
        else:
            ends = {end + len(word) for end in ends if routing_key.startswith(word, end)}
    return len(routing_key) in ends


def _within_word(text: str, start: int) -> range:
    """Every end of a piece of at least one letter that begins at `start` and has no dot."""
    dot = text.find(".", start)
    return range(start + 1, (len(text) if dot < 0 else dot) + 1)
