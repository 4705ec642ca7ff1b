"""What the log says of outages and refusals: a line at once, then sums, never a line an attempt.

However long a server is away and however many messages are refused, there are a few lines a minute.
No payload is in any of them: a refused message is named by its id.
"""

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

import structlog

from outbox_relay.core.message import Parking, Reason, Refusal

log = structlog.get_logger()

#: An outage that goes on is logged again, with its newest reason, after that many seconds.
REMIND_EVERY: Final = 60.0
#: It is over when everything has worked for that many seconds: a server that takes connections and
#: then drops them has not come back.
CALM: Final = 1.0
#: Refusals for the same reason are summed up at most that often, in seconds.
SUM_EVERY: Final = 60.0
#: The most characters of a detail: names in it come from rows.
MAX_DETAIL: Final = 300


class Outage:
    """Whether a server was last logged as up or lost."""

    def __init__(self, server: str, clock: Callable[[], float]) -> None:
        self._server, self._clock = server, clock
        self._logged_up: bool | None = None
        self._logged = self._lost = float("-inf")

    def lost(self, reason: str) -> None:
        """An attempt to reach it, or to work with it, has failed."""
        self._lost = self._clock()
        if self._logged_up is not False or self._lost - self._logged >= REMIND_EVERY:
            self._logged_up, self._logged = False, self._lost
            log.warning(f"{self._server}_lost", reason=reason)

    def works(self) -> None:
        """It did what it was asked."""
        if not self._logged_up and self._clock() - self._lost >= CALM:
            self._logged_up = True
            log.info(f"{self._server}_up")


def outages(clock: Callable[[], float]) -> tuple[Outage, Outage]:
    """Of a database and of a broker."""
    return Outage("database", clock), Outage("broker", clock)


class ChoreFailures:
    """Says that a chore failed, and goes on doing so once in REMIND_EVERY seconds."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def note(self, chore: str, reason: str, now: float) -> None:
        """It failed now."""
        if now - self._logged.get(chore, float("-inf")) >= REMIND_EVERY:
            self._logged[chore] = now
            log.error("chore_failed", chore=chore, reason=reason)


class Refusals:
    """Counts refusals by reason, and logs the sums."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._sums: dict[Reason | None, _Sum] = {}  # None stands for the dead

    def add(self, refusals: Iterable[Refusal], parkings: Iterable[Parking]) -> None:
        """Count them; a reason that was not logged lately is logged at once."""
        for refusal in refusals:
            self._sum(refusal.reason).add(refusal.message.message_id, refusal.detail)
        for parking in parkings:
            if parking.state == "dead":
                self._sum(None).add(parking.message.message_id, parking.error)
        self.log()

    def log(self, *, all_of_them: bool = False) -> None:
        """Log the sums whose time has come, or all."""
        now = self._clock()
        for reason, sum_ in self._sums.items():
            if sum_.messages and (all_of_them or now - sum_.logged >= SUM_EVERY):
                sum_.log(reason, now)

    def _sum(self, reason: Reason | None) -> "_Sum":
        return self._sums.setdefault(reason, _Sum())


class _Sum:
    """Messages since the last line, and the first of them."""

    def __init__(self) -> None:
        self.logged = float("-inf")
        self.messages = 0
        self._first = self._detail = ""

    def add(self, message_id: str, detail: str) -> None:
        if not self.messages:
            self._first, self._detail = message_id[:MAX_DETAIL], detail[:MAX_DETAIL]
        self.messages += 1

    def log(self, reason: Reason | None, now: float) -> None:
        about = {"messages": self.messages, "first": self._first, "detail": self._detail}
        if reason is None:
            log.error("messages_dead", **about)
        else:
            log.warning("messages_refused", reason=str(reason), **about)
        self.logged, self.messages = now, 0
