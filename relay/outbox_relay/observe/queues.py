"""Watches the queues that messages go to, and whether workers know the tasks that wait for them.

On a thread of its own: a slow broker holds up nothing.

What cannot be read is unknown, and said so at debug level: that the broker or the database is away
is told by the loop.
"""

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final

import structlog

from outbox_relay.core.depth import Depth
from outbox_relay.core.rounds import Quiet, Rounds, never
from outbox_relay.errors import RelayError
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.watch import Watch

log = structlog.get_logger()

#: Between two looks, in seconds.
EVERY: Final = 30.0
EVERY_QUIET: Final = 120.0  # while nothing moves
#: Before the first one: a relay that has just been started has better things to do.
FIRST: Final = 5.0


class QueueWatch(Watch):
    """Looks every so often; a context manager that stops it."""

    def __init__(
        self,
        look: Callable[[], Sequence[Depth]],
        metrics: Metrics,
        *,
        unknown: Callable[[], Mapping[tuple[str, str], int]] = dict,
        first: float = FIRST,
        every: float = EVERY,
        quiet: Quiet = never,
    ) -> None:
        super().__init__("queues")
        self._rounds = Rounds(EVERY_QUIET, quiet)
        self._look, self._unknown, self._metrics = look, unknown, metrics
        self._first, self._every = first, every

    def _run(self) -> None:
        pause = self._first
        while not self._stopped.wait(pause):
            pause = self._every
            if not self._rounds.are_due(monotonic()):
                continue
            self._tell(lambda: self._metrics.queues(self._look()), lambda: self._metrics.queues(()))
            self._tell(
                lambda: self._metrics.unknown_tasks(self._unknown()), self._metrics.unknown.clear
            )

    def _tell(self, tell: Callable[[], None], forget: Callable[[], None]) -> None:
        try:
            tell()
        except RelayError as error:
            forget()
            log.debug("queues_unread", reason=str(error))
