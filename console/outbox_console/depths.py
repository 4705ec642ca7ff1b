"""How deep the queues are at the broker, as a relay's metrics have it; the broker is not asked.

All relays are asked at once, and the first that answers counts. No page waits longer than a fixed
time for them, however slowly or much they send.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import Final
from urllib.parse import SplitResult, urlsplit

#: Seconds for all of them, and bytes of each: a relay answers at once, with some ten thousand.
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
    """Asks relays."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    @property
    def asked(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._urls)

    async def read(self) -> dict[str, Depth] | None:
        """The queues by name; None where no relay answers."""
        asking = [asyncio.create_task(_ask(url)) for url in self._urls]
        try:
            for first in asyncio.as_completed(asking, timeout=_DEADLINE):
                if (found := await first) is not None:
                    return found
        except TimeoutError:
            pass
        finally:
            for task in asking:
                task.cancel()
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


async def _ask(url: str) -> dict[str, Depth] | None:
    try:
        return parse(_content(await _received(urlsplit(url))))
    except (OSError, ValueError, ArithmeticError, HTTPException):
        return None


async def _received(url: SplitResult) -> bytes:
    """The answer as it came, from a server that ends the connection after it."""
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=secure or None)
    try:
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        host = url.netloc.rpartition("@")[2]
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        received = b""
        while part := await reader.read(65536):
            received += part
            if len(received) > _LARGEST:
                raise ValueError
        return received
    finally:
        writer.transport.abort()


class _Received:
    """What the standard library reads an answer from, where it is there already."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, *_: object) -> BytesIO:
        """The same."""
        return BytesIO(self._received)


def _content(received: bytes) -> str:
    answer = HTTPResponse(_Received(received))  # type: ignore[arg-type]  # as much as it asks of a socket
    answer.begin()
    if answer.status != 200:
        raise ValueError
    return answer.read().decode()
