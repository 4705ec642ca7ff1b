"""What seats have left that still works, kept for a while for the next ones.

A session is for any outbox of its database, a publisher for any whose broker is the same and is
used in the same way. What nobody has taken for a while is closed, and so is what there is no room
for, the oldest first.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from typing import Final, Generic, TypeVar

from outbox_relay.broker.publisher import Publisher
from outbox_relay.errors import BrokerLost
from outbox_relay.loop.left import Left
from outbox_relay.many import alike
from outbox_relay.postgres.database import BoundedConnection
from outbox_relay.settings import Settings

T = TypeVar("T")

#: How long a spare is kept, in seconds: to connect is what a lone task waits for longest.
KEPT: Final = 300.0
#: How often publishers are looked after: each has a heartbeat to keep.
TEND_EVERY: Final = 2.0
#: The most sessions of one database, and publishers altogether.
MAX_SESSIONS: Final = 2
MAX_PUBLISHERS: Final = 16


@dataclass(frozen=True, slots=True)
class _Spare(Generic[T]):
    key: Hashable
    what: T
    since: float


class _Shelf(Generic[T]):
    """Spares of one sort, the oldest first."""

    def __init__(self, close: Callable[[T], None]) -> None:
        self._close = close
        self._spares: list[_Spare[T]] = []

    def put(self, key: Hashable, what: T, now: float, most_alike: int) -> None:
        self._spares.append(_Spare(key, what, now))
        alike = [spare for spare in self._spares if spare.key == key]
        self.throw_out(alike[:-most_alike])

    def take(self, key: Hashable) -> T | None:
        """The newest."""
        for spare in reversed(self._spares):
            if spare.key == key:
                self._spares.remove(spare)
                return spare.what
        return None

    def keep(self, most: int, good: Callable[[T], bool], now: float) -> None:
        """Only those that are good, young, and not too many."""
        spares = self._spares
        self.throw_out([s for s in spares if now - s.since > KEPT or not good(s.what)])
        self.throw_out(self._spares[: max(0, len(self._spares) - most)])

    def throw_out(self, spares: list[_Spare[T]]) -> None:
        for spare in spares:
            self._spares.remove(spare)
            self._close(spare.what)


class Spares:
    """Those of all databases and brokers. For one thread."""

    def __init__(self) -> None:
        self._sessions = _Shelf[BoundedConnection](lambda session: session.close())
        self._publishers = _Shelf[Publisher](lambda publisher: publisher.close())
        self._tended = 0.0

    def put(self, settings: Settings, left: Left) -> None:
        """Keep what the seat of an outbox with these settings has left."""
        now = monotonic()
        if left.session is not None:
            self._sessions.put(alike.for_session(settings), left.session, now, MAX_SESSIONS)
        if left.publisher is not None:
            if (key := alike.for_publisher(settings)) is None:
                left.publisher.close()
            else:
                self._publishers.put(key, left.publisher, now, MAX_PUBLISHERS)

    def take(self, settings: Settings) -> Left:
        """What there is for a seat with these settings."""
        key = alike.for_publisher(settings)
        publisher = None if key is None else self._publishers.take(key)
        return Left(self._sessions.take(alike.for_session(settings)), publisher)

    def tend(self, sessions: int) -> None:
        """Keep at most so many sessions; call it every second or so."""
        now = monotonic()
        self._sessions.keep(max(0, sessions), lambda _: True, now)
        if now - self._tended >= TEND_EVERY:
            self._tended = now
            self._publishers.keep(MAX_PUBLISHERS, _is_well, now)

    def close(self) -> None:
        """Keep none."""
        self._sessions.keep(0, lambda _: True, monotonic())
        self._publishers.keep(0, lambda _: True, monotonic())


def _is_well(publisher: Publisher) -> bool:
    """Whether its broker still is there; this keeps the heartbeat."""
    try:
        publisher.poll(0)
    except BrokerLost:
        return False
    return publisher.spotless
