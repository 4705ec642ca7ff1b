"""Shows what became of messages after their confirm: how long tasks took, and what is missing.

On a thread of its own: a database or a broker that is slow to tell holds up nothing.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from outbox_relay.core.effects import Seen
from outbox_relay.core.rounds import Quiet, Rounds, never
from outbox_relay.errors import RelayError
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.watch import Watch

log = structlog.get_logger()

#: Between two looks, in seconds; and before the first one.
EVERY: Final = 30.0
EVERY_QUIET: Final = 120.0  # while nothing moves
#: So many times as long as a look took is the pause after it: looks are a hundredth of the time.
REST: Final = 100.0
FIRST: Final = 5.0


class EffectWatch(Watch):
    """Looks every so often; a context manager that stops it. What cannot be known is not shown."""

    def __init__(
        self,
        look: Callable[[], Seen | None],
        metrics: Metrics,
        *,
        first: float = FIRST,
        every: float = EVERY,
        quiet: Quiet = never,
    ) -> None:
        super().__init__("effects")
        self._rounds = Rounds(EVERY_QUIET, quiet)
        self._look, self._metrics = look, metrics
        self._first, self._every = first, every

    def _run(self) -> None:
        pause = self._first
        while not self._stopped.wait(pause):
            pause = self._every
            if not self._rounds.are_due(began := monotonic()):
                continue
            try:
                self._metrics.effects(self._look())
            except RelayError as error:
                self._metrics.effects(None)
                log.debug("effects_unread", reason=str(error))
            pause = max(self._every, REST * (monotonic() - began))
