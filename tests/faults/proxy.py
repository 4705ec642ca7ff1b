"""A TCP proxy whose network can fail: between a relay and its servers, each way for itself.

Every failure leaves evidence (bytes held, dropped, sliced; connections reset or refused), so that
a test can assert that its fault has really happened.
"""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import Any, Literal, Self

from servers.ports import free_port

#: From the client to the server, and back.
Way = Literal["up", "down"]
BOTH: tuple[Way, Way] = ("up", "down")
#: The evidence.
Evidence = Literal["held", "dropped", "sliced", "throttled", "reset", "refused", "rewritten"]

_CHUNK = 1 << 16
_TICKS = 20  # throttled bytes go in so many portions a second
_CONTROL_SECONDS = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class _Mode:
    """What happens to bytes that go one way."""

    kind: Literal["pass", "hold", "drop", "slice", "throttle"] = "pass"
    amount: int = 0  # bytes a slice, or bytes a second


@dataclass(slots=True, eq=False)
class _Pair:
    """A client's connection and ours to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    lost: bool = False  # a byte was dropped: nothing that follows could make sense


class Proxy:
    """Listens on a loopback port of its own and passes everything on, until told otherwise."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """Stand in front of a server's port."""
        self.port = free_port()
        self.evidence: Counter[Evidence] = Counter()
        self.accepted = 0  # connections
        self._upstream = host, port
        self._modes: dict[Way, _Mode] = {way: _Mode() for way in BOTH}
        self._budget: dict[Way, int | None] = dict.fromkeys(BOTH)
        self._rewrite: Callable[[bytes], bytes] | None = None
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold(self, *ways: Way) -> None:
        """Keep bytes back until `heal`; by default both ways."""
        self._set(_Mode("hold"), ways)

    def drop(self, *ways: Way) -> None:
        """Lose bytes for good, and with them the rest of their connection: half-open."""
        self._set(_Mode("drop"), ways)

    def slice(self, size: int, *ways: Way) -> None:
        """Pass on a few bytes at a time."""
        self._set(_Mode("slice", size), ways)

    def throttle(self, bytes_a_second: int, *ways: Way) -> None:
        """Pass on no more than that."""
        self._set(_Mode("throttle", bytes_a_second), ways)

    def rewrite(self, lie: Callable[[bytes], bytes]) -> None:
        """Have the server say something else; `lie` is given what arrives at a time."""
        self._rewrite = lie

    def heal(self) -> None:
        """Pass everything again, first what was held, and listen again."""

        async def heal() -> None:
            self._change(_Mode(), BOTH)
            self._rewrite = None
            if self._server is None:
                await self._listen()

        self._do(heal())

    def reset(self) -> None:
        """RST every open connection, both ends."""
        self._do(self._reset())

    def reset_after(self, size: int, way: Way) -> None:
        """RST the connection over which that many more bytes have gone, in mid-frame if need be."""

        async def arm() -> None:
            self._budget[way] = size

        self._do(arm())

    def refuse(self) -> None:
        """RST every open connection and stop listening, as a server that is gone."""
        self._do(self._refuse())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_CONTROL_SECONDS)

    def _set(self, mode: _Mode, ways: tuple[Way, ...]) -> None:
        async def change() -> None:
            self._change(mode, ways or BOTH)

        self._do(change())

    def _change(self, mode: _Mode, ways: tuple[Way, ...]) -> None:
        for way in ways:
            self._modes[way] = mode
        self._changed.set()
        self._changed = asyncio.Event()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self.evidence["refused"] += 1
        await self._reset()

    async def _end(self) -> None:
        await self._refuse()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _reset(self) -> None:
        for pair in list(self._pairs):
            self._abort(pair)

    def _abort(self, pair: _Pair) -> None:
        self.evidence["reset"] += 1
        for writer in (pair.client, pair.server):
            end: socket.socket | None = writer.get_extra_info("socket")
            if end is not None and end.fileno() >= 0:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            answers, server = await asyncio.open_connection(*self._upstream)
        except OSError:
            client.transport.abort()
            return
        pair = _Pair(client, server)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pump("up", reader, server, pair), self._pump("down", answers, client, pair)
            )
        except asyncio.CancelledError:
            pass  # the proxy ends
        finally:
            self._pairs.discard(pair)
            for writer in (client, server):
                writer.close()

    async def _pump(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair
    ) -> None:
        """Pass on one way until its end, then end the other as well."""
        try:
            while data := await reader.read(_CHUNK):
                await self._pass(way, data, writer, pair)
            # A dead network tells nobody that the other end has gone.
            await self._until(lambda: self._modes[way].kind not in ("hold", "drop"))
            if not pair.lost:
                for end in (pair.client, pair.server):
                    end.close()
        except OSError:
            self._abort(pair)

    async def _pass(self, way: Way, data: bytes, writer: asyncio.StreamWriter, pair: _Pair) -> None:
        if way == "down" and self._rewrite is not None:
            said, data = data, self._rewrite(data)
            self.evidence["rewritten"] += said != data
        rest = memoryview(data)
        while rest:
            mode = self._modes[way]
            if mode.kind == "drop" or pair.lost:
                pair.lost = True
                self.evidence["dropped"] += len(rest)
                return
            if mode.kind == "hold":
                self.evidence["held"] += len(rest)
                await self._until(lambda held=mode: self._modes[way] is not held)  # type: ignore[misc]  # mypy infers no lambda with a default
                continue
            portion = self._portion(way, mode, len(rest))
            writer.write(rest[:portion])
            await writer.drain()
            rest = rest[portion:]
            if mode.kind != "pass":
                self.evidence["sliced" if mode.kind == "slice" else "throttled"] += portion
                await asyncio.sleep(0 if mode.kind == "slice" else 1 / _TICKS)
            self._spend(way, portion, pair)

    def _portion(self, way: Way, mode: _Mode, size: int) -> int:
        limits = {"slice": mode.amount, "throttle": max(1, mode.amount // _TICKS)}
        return min(size, limits.get(mode.kind, size), self._budget[way] or size)

    def _spend(self, way: Way, size: int, pair: _Pair) -> None:
        budget = self._budget[way]
        if budget is not None:
            self._budget[way] = budget - size or None
            if budget == size:
                self._abort(pair)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()
