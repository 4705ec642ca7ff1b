"""Pairs the replies of a pipelined connection with its requests, in order. No I/O."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import hiredis

from outbox_relay.errors import BrokerLost

T = TypeVar("T")


@dataclass(slots=True)
class _Request(Generic[T]):
    about: T
    replies: int
    asked: float
    heard: list[object] = field(default_factory=list)


class Pipeline(Generic[T]):
    """The requests that are not fully answered."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._open: deque[_Request[T]] = deque()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def open(self) -> list[T]:
        """What the open requests are about, oldest first."""
        return [question.about for question in self._open]

    @property
    def oldest(self) -> float | None:
        """When the oldest of these was sent."""
        return self._open[0].asked if self._open else None

    def asked(self, about: T, replies: int, now: float) -> None:
        """Note that commands with so many replies were sent."""
        self._open.append(_Request(about, replies, now))

    def feed(self, data: bytes) -> Iterator[tuple[T, list[object]]]:
        """Each request that is answered by now, with its replies.

        Raises BrokerLost where the server says what nobody asked for.
        """
        self._reader.feed(data)
        while (reply := self._next()) is not False:
            if isinstance(reply, hiredis.PushNotification):
                continue
            if isinstance(reply, hiredis.ReplyError) and "Protocol error" in str(reply):
                raise BrokerLost(f"the server closed on us: {reply}", poison=True)
            if not self._open:
                raise BrokerLost(f"the server closed on us: {reply}")
            question = self._open[0]
            question.heard.append(reply)
            if len(question.heard) == question.replies:
                self._open.popleft()
                yield question.about, question.heard

    def _next(self) -> object:
        try:
            return self._reader.gets()
        except hiredis.ProtocolError as error:
            raise BrokerLost(f"this is no Redis: {error}") from error
