"""What the page shows of a shell: each command, and what it printed. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

_BLOCK: Final = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_PROMPT: Final = "$ "
#: In a command that cannot be played as it stands, such as one with a shortened id.
SHORTENED: Final = "…"


def samples(page: str) -> Iterator[tuple[str, str]]:
    """Every command of the page with what it is shown to have printed."""
    for block in _BLOCK.findall(page):
        yield from _samples(block)


def written(page: str, played: Mapping[str, Sequence[str]]) -> str:
    """The page with what commands printed when they were played, each in turn.

    One that was not played keeps its sample.
    """
    turns = {command: iter(printed) for command, printed in played.items()}

    def block(found: re.Match[str]) -> str:
        return "".join(
            f"{_PROMPT}{command}\n{next(turns.get(command, iter(())), printed)}"
            for command, printed in _samples(found[0])
        )

    return _BLOCK.sub(block, page)


def _samples(block: str) -> Iterator[tuple[str, str]]:
    for part in re.split(rf"^{re.escape(_PROMPT)}", block, flags=re.MULTILINE)[1:]:
        command, printed = part.split("\n", 1)
        yield command, printed
