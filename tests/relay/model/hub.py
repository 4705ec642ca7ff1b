"""Virtual time, and relays as coroutines of it: a relay runs until it waits for anything.

Each relay is the real one on a greenlet of its own. Whatever would wait for a server or for time
calls `wait` instead, which hands control back to the test: so the test decides what happens between
any two moments at which the relay talks to anybody, and a run repeats exactly.
"""

from collections.abc import Callable

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]  # it has no types


class Clock:
    """Seconds of one world; they pass when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0


class Process:
    """A relay's thread of control."""

    def __init__(self, clock: Clock, run: Callable[[], None]) -> None:
        self._clock = clock
        self._greenlet = greenlet(run)
        self._killed = False
        self.seen = clock.now  # when it last ran

    @property
    def now(self) -> float:
        """The time it is for this process."""
        return self._clock.now

    @property
    def alive(self) -> bool:
        """Whether it has neither ended nor been killed."""
        return not (self._killed or self._greenlet.dead)

    def step(self) -> None:
        """Let it run until it waits, or ends. What it raises is raised here."""
        self._greenlet.switch()
        self.seen = self._clock.now

    def wait(self, seconds: float = 0.0) -> None:
        """Called by the relay: let time pass, and the test have its turn."""
        if self._killed:  # only `finally` clauses run now, and a killed process runs none
            raise GreenletExit
        assert getcurrent() is self._greenlet
        self._clock.now += seconds
        hub = self._greenlet.parent
        assert hub is not None
        hub.switch()

    def kill(self) -> None:
        """End it where it waits, as SIGKILL would."""
        if self.alive:
            self._killed = True
            self._greenlet.throw(GreenletExit)


class Event:
    """A threading.Event whose waits take virtual time."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def set(self) -> None:
        """Set it."""
        self._set = True

    def wait(self, timeout: float) -> bool:
        """Let time pass, unless it is set."""
        if not self._set:
            self._process.wait(timeout)
        return self._set
