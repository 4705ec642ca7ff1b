"""The way around a connection that was brought to a stop by a queue that does not answer.

RabbitMQ reads nothing more from a connection that has sent too much to such a queue, and does not
say to which. So another connection is opened, and the newest message of each route that is stuck is
moved there: a route for which that is confirmed is healthy, and the rest of its messages follow.
The others wait where they are, and until then each has no more than that one message on its way.
"""

from collections.abc import Callable, Iterable
from typing import Final

import amqp
import structlog

from outbox_relay.broker.amqp.channel import unanswered
from outbox_relay.broker.amqp.line import Line
from outbox_relay.broker.opening import Opening
from outbox_relay.core.message import Message, Refusal
from outbox_relay.core.pauses import Route, route_of
from outbox_relay.errors import BrokerLost

log = structlog.get_logger()

#: How long to wait after another connection could not be opened, in seconds.
REOPEN_AFTER: Final = 1.0
#: The connection is given so many seconds to go on by itself before messages of healthy routes
#: leave it: the broker may have been slow altogether.
GRACE: Final = 0.1
#: The most routes that are tried on the other connection; messages of more wait for their confirms.
MAX_TRIED: Final = 1000


class Bypass:
    """The connection that stands still, if there is one, and what is known of its routes."""

    def __init__(
        self,
        begin_opening: Callable[[], Opening[amqp.Connection]],
        new_line: Callable[[amqp.Connection], Line],
        confirm_timeout: float,
    ) -> None:
        self._begin_opening, self._new_line = begin_opening, new_line
        self._confirm_timeout = confirm_timeout
        self._opening: Opening[amqp.Connection] | None = None
        self._reopen_at = 0.0
        self.stalled: Line | None = None
        self._proven_at: float | None = None  # when the broker first confirmed what goes around
        #: Routes of which it is not known whether they answer.
        self.on_trial: set[Route] = set()
        self._healthy: set[Route] = set()  # they do, and have messages that are stuck

    @property
    def stuck(self) -> int:
        """How many messages are in flight on the connection that stands still."""
        return self.stalled.in_flight if self.stalled else 0

    @property
    def moving(self) -> bool:
        """Whether it has something to do soon: to open a connection, or to send on what is well."""
        return self._opening is not None or bool(self._healthy)

    def open(self, line: Line, now: float) -> tuple[Line, list[Refusal]]:
        """Return the line to go on with, in place of one that stands still; and what is refused."""
        if self.stalled is not None and self._proven_at is None:
            return line, []  # it may be the broker: time will tell
        if self._opening is None:
            if now < self._reopen_at:
                return line, []
            self._opening, self._reopen_at = self._begin_opening(), now + REOPEN_AFTER
        try:
            if (connection := self._opening.result()) is None:
                return line, []
            other = self._new_line(connection)
        except BrokerLost:
            self._opening = None
            return line, []
        self._opening = None
        refused = self._give_up() if self.stalled is not None else []
        probes = list(line.newest().values())[:MAX_TRIED]
        log.warning("connection_bypassed", messages=line.in_flight, routes=len(probes))
        self.stalled, self._proven_at, self._healthy = line, None, set()
        self.on_trial = set(line.newest())
        line.take_back_each(probes)
        return other, refused + other.send_apart(probes, now)

    def recovered(self) -> None:
        """It stands still no more: the other connection is not needed."""
        if self._opening is not None:
            self._opening.abandon()
        self._opening = None

    def step(
        self, line: Line, confirmed: list[Message], refused: list[Refusal], now: float
    ) -> list[Refusal]:
        """Add what is confirmed by now where nothing was; send on what is found to be healthy.

        Returns what is refused. Raises BrokerLost where no way around is left.
        """
        assert self.stalled is not None
        late: list[Message] = []
        came_back: list[Refusal] = []
        broke = self._listen(late, came_back)
        self._judge(_routes(confirmed, refused), _routes(late, came_back), now)
        confirmed += late
        if broke is not None and broke.poison:
            raise broke
        if self._healthy and min(self._proven_for(now), self.stalled.quiet(now)) > GRACE:
            for route in self._healthy:
                came_back += line.send(self.stalled.take_back(route), now)
            self._healthy = set()
        self.stalled.landed(now)
        waiting = self.stalled.waiting(now)
        if waiting > self._confirm_timeout and not self._proven_for(now):
            raise BrokerLost(f"no confirm for {waiting:.0f} s", silent=True)
        if broke or waiting > self._confirm_timeout or not self.stalled.in_flight:
            came_back += self._give_up()
        return came_back

    def _proven_for(self, now: float) -> float:
        """For how long it is known that the broker confirms what goes around; 0 if it is not."""
        return now - self._proven_at if self._proven_at is not None else 0.0

    def _listen(self, confirmed: list[Message], refused: list[Refusal]) -> BrokerLost | None:
        """Hear what stands still; how it ended, if it has."""
        assert self.stalled is not None
        try:
            self.stalled.listen(0, confirmed, refused)
        except BrokerLost as error:
            return error
        return self.stalled.fate

    def _judge(self, answered: set[Route], late: set[Route], now: float) -> None:
        """Routes have answered, on the other connection and on the one that stands still."""
        if answered and self._proven_at is None:
            self._proven_at = now
        self._healthy |= answered & self.on_trial
        self.on_trial -= answered | late

    def close(self) -> None:
        """Drop the connections."""
        self.recovered()
        if self.stalled is not None:
            self.stalled.close()
        self.stalled = None

    def _give_up(self) -> list[Refusal]:
        """Wait no longer for the connection that stands still."""
        assert self.stalled is not None
        left = self.stalled.take_back()
        self.stalled.close()
        self.stalled, self.on_trial = None, set()
        return [unanswered(message, self._confirm_timeout) for message in left]


def _routes(confirmed: Iterable[Message], refused: Iterable[Refusal]) -> set[Route]:
    """The routes of messages of which the broker has said anything."""
    return {route_of(m) for m in confirmed} | {route_of(r.message) for r in refused}
