"""Whether an exchange would route a key, from its type and its bindings' keys. Pure."""

from collections.abc import Sequence


def routes(kind: str, keys: Sequence[str], routing_key: str) -> bool:
    """Whether anything bound with these keys would get a message with this one.

    Headers exchanges, and those of plugins, decide by more than the key: any binding may do.
    """
    if kind == "direct":
        return routing_key in keys
    if kind == "topic":
        return any(topic_matches(key.split("."), routing_key.split(".")) for key in keys)
    return bool(keys)


def topic_matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """AMQP's topics: `*` is one word, `#` any number of them."""
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(topic_matches(rest, words[n:]) for n in range(len(words) + 1))
    return bool(words) and first in ("*", words[0]) and topic_matches(rest, words[1:])
