"""Reads again and again which outboxes there are, on a thread of its own: asking may take long."""

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from outbox_relay.errors import RelayError
from outbox_relay.many.outbox import Outbox
from outbox_relay.many.roster import Reading, Roster
from outbox_relay.observe.watch import Watch

log = structlog.get_logger()

#: Between two readings, in seconds: each connects to every database.
EVERY: Final = 20.0


class Listing(Watch):
    """Reads every so often; a context manager that begins with one reading, and stops at the end.

    Raises SettingsError where the first finds no file that could be right.
    """

    def __init__(
        self,
        roster: Roster,
        tell: Callable[[Sequence[Outbox]], None],
        *,
        every: float = EVERY,
    ) -> None:
        super().__init__("outboxes")
        self._roster, self._tell, self._every = roster, tell, every
        self._trouble: set[str] = set()
        self._note(roster.read())

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self._note(self._roster.read())
            except RelayError as error:
                self._log({str(error)})

    def _note(self, reading: Reading) -> None:
        self._tell(reading.outboxes)
        self._log(set(reading.trouble))

    def _log(self, trouble: set[str]) -> None:
        """What was not so at the last reading."""
        for reason in sorted(trouble - self._trouble):
            log.warning("outboxes_unread", reason=reason)
        self._trouble = trouble
