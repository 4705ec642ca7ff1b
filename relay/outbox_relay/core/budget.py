"""How often to do what may come to take long: it takes a share of the time at most. Pure."""

from dataclasses import dataclass, field

NEVER = float("-inf")


@dataclass(slots=True)
class Budget:
    """Due every so many seconds, or less often once it takes long. `now` in monotonic seconds."""

    every: float
    share: float = 0.1
    #: The longest pause, in seconds, however long it takes.
    longest: float = 60.0
    _last: float = field(default=NEVER, init=False)
    _took: float = field(default=0.0, init=False)
    _more: bool = field(default=False, init=False)

    def is_due(self, now: float) -> bool:
        """Whether it is time; the next time is counted from here."""
        usual = max(self.every, self._took / self.share)
        if now - self._last < min(self.longest, 2 * self._took if self._more else usual):
            return False
        self._last, self._more = now, False
        return True

    def took(self, seconds: float) -> None:
        """Note how long the last time took."""
        self._took = seconds

    def more(self) -> None:
        """There is more to do: go on after a pause that is as long as what was done now."""
        self._more = True

    def soon(self) -> None:
        """It is due at once."""
        self._last = NEVER
