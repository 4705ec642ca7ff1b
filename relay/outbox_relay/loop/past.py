"""Whether the database is still the one it was: another server, or an older state, begins anew."""

from typing import Final

from outbox_relay.core.backlog import History
from outbox_relay.errors import StoreLost

#: How often it is looked at, in seconds.
LOOK_BACK_EVERY: Final = 5.0


class Past:
    """How far the database had come when it was last looked at."""

    def __init__(self) -> None:
        self._history: History | None = None
        self._looked_back = 0.0

    def continues_in(self, history: History) -> bool:
        """Whether this one goes on where the last one was."""
        return self._history is None or history.continues(self._history)

    def begins(self, history: History) -> None:
        """From here on; whatever was before."""
        self._history = history

    def is_due(self, now: float) -> bool:
        """Whether it is time to look; it is looked at then."""
        if now - self._looked_back < LOOK_BACK_EVERY:
            return False
        self._looked_back = now
        return True

    def goes_on(self, history: History) -> None:
        """So far it has come by now. Raises StoreLost where it was set back."""
        if not self.continues_in(history):
            raise StoreLost("the database was set back to an earlier state")
        self._history = history
