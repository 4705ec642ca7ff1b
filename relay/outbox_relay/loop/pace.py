"""How often the chores beside publishing are looked after: the less there is to do, the less often.

Times are in monotonic seconds.
"""

from typing import Final

from outbox_relay.loop.sleep import Sleep

#: Between two looks at which chores are due, in seconds; while another relay is rung, which may be
#: frozen; while this one sleeps, which has an alarm; and when nothing has moved for a while.
CHORES_EVERY: Final = 0.1
CHORES_EVERY_RESTING: Final = 2.0
CHORES_EVERY_ASLEEP: Final = 10.0
CHORES_EVERY_QUIET: Final = 30.0
#: How long they wait when the doorbell has woken the relay, or it has just begun: what was
#: committed goes first.
CHORES_AFTER_CALL: Final = 0.02
#: How long at most until what has just begun is done with what it found first.
CHORES_AFTER_WORK: Final = 0.5
NEVER: Final = float("-inf")


class Pace:
    """When the chores were looked after last."""

    def __init__(self) -> None:
        self._last = NEVER
        self._slept = False
        self._begun: float | None = None
        #: Whether it was the alarm that made chores due just now: something is to be promoted.
        self.alarm = False

    def begins(self, now: float, *, chores_first: bool = False) -> None:
        """A connection is new: the first look for work, and what it finds, goes before the chores.

        With `chores_first` the chores go first: where claims from before may be about to run out,
        and in a drain, which may be over in a moment.
        """
        self._last, self._begun = NEVER, None if chores_first else now

    def are_due(self, now: float, sleep: Sleep, *, quiet: bool, holding: bool = False) -> bool:
        """Whether to look after them now; the next time is counted from here.

        Who is `holding` messages has their claims to renew, asleep or not.
        """
        if self._begun is not None:
            if now - self._begun < (CHORES_AFTER_WORK if holding else CHORES_AFTER_CALL):
                return False
            self._begun = None
        called = self._slept and not sleep.asleep
        self.alarm, self._slept = called and not sleep.rung, sleep.asleep
        if called:
            self._last = NEVER if self.alarm else now - CHORES_EVERY + CHORES_AFTER_CALL
        every = CHORES_EVERY if holding else _every(sleep, quiet=quiet)
        if now - self._last < every:
            return False
        self._last = now
        return True


def _every(sleep: Sleep, *, quiet: bool) -> float:
    if sleep.asleep:
        return CHORES_EVERY_QUIET if quiet else CHORES_EVERY_ASLEEP
    return CHORES_EVERY_RESTING if sleep.at_ease else CHORES_EVERY
