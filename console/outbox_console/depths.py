"""How deep the queues are at the broker, as a relay's metrics have it; the broker is not asked."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.request import urlopen

#: Seconds, and bytes: a relay answers at once, with some ten thousand.
_DEADLINE: Final = 2.0
_LARGEST: Final = 2_000_000
_LINE: Final = re.compile(
    r'^outbox_queue_(depth|consumers)\{queue="((?:[^"\\]|\\.)*)"\} ([0-9.e+]+)$', re.MULTILINE
)
_ESCAPED: Final = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class Depth:
    """A queue: messages ready, and who takes them; None where the broker does not tell."""

    messages: int
    consumers: int | None


class Depths:
    """Asks relays, one after another, until one answers."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    @property
    def asked(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._urls)

    async def read(self) -> dict[str, Depth] | None:
        """The queues by name; None where no relay answers."""
        for url in self._urls:
            try:
                return parse(await asyncio.to_thread(_get, url))
            except (OSError, ValueError):
                continue
        return None


def parse(text: str) -> dict[str, Depth]:
    """The queues of a page of metrics."""
    told: dict[str, dict[str, int]] = {}
    for what, name, value in _LINE.findall(text):
        queue = re.sub(r"\\.", lambda found: _ESCAPED.get(found[0], found[0]), name)
        told.setdefault(queue, {})[what] = int(float(value))
    return {
        queue: Depth(values["depth"], values.get("consumers"))
        for queue, values in told.items()
        if "depth" in values
    }


def _get(url: str) -> str:
    with urlopen(url, timeout=_DEADLINE) as answer:
        return str(answer.read(_LARGEST).decode())
