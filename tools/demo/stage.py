"""What the play is performed on: programs, customers and numbers, all ended together.

While the audience waits for something, the numbers move and a program that ends by itself is
noticed at once.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self

from demo.customers import QUIET_SECONDS, Customers
from demo.programs import Console, Relay, Worker
from demo.progress import Numbers, Progress
from demo.screen import Screen, State
from demo.services import Services

_TICK_SECONDS = 0.2
_ACT_SECONDS = 40.0
_RESTARTS = 3


class TookTooLong(RuntimeError):
    """Something did not come about within its deadline; the message says what."""


class Patience:
    """A deadline that is put off whenever the numbers move, but not beyond `at_most` seconds."""

    def __init__(
        self, seconds: float, at_most: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._began = clock()
        self._deadline, self._last = clock() + seconds, clock() + at_most
        self._numbers: Numbers | None = None

    @property
    def spent(self) -> float:
        """The seconds since it began."""
        return self._clock() - self._began

    def is_over(self, numbers: Numbers) -> bool:
        """Whether to give up, now that the numbers are these."""
        if numbers != self._numbers:
            self._numbers = numbers
            self._deadline = min(self._last, self._clock() + self._seconds)
        return self._clock() > self._deadline


class Stage:
    """Everything that runs during the play, apart from the servers."""

    def __init__(self, services: Services, folder: Path, screen: Screen) -> None:
        self.services = services
        self.say = screen.say
        self.state = State(broker=services.broker.name)
        self._folder = folder
        self._screen = screen
        self._restarts = 0
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            self.progress = Progress(self.services.database_url)
            closing.callback(self.progress.close)
            self.relay = Relay(self.services, self._folder)
            closing.callback(lambda: self.relay.kill())  # whichever is there then
            self.worker = Worker(self.services, self._folder)
            closing.callback(lambda: self.worker.kill())
            self.console = Console(self.services, self._folder)
            closing.callback(self.console.kill)
            self.say(f"look at it while it runs: http://{self.console.address}", "bold")
            # A server ends with the thread that started it: this one lives to the end of the play.
            self._stagehand = closing.enter_context(ThreadPoolExecutor(1))
            self.customers = closing.enter_context(Customers(self.services.database_url))
            self._closing = closing.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    def watch(
        self,
        until: Callable[[Numbers], bool],
        what: str,
        seconds: float = _ACT_SECONDS,
        at_most: float | None = None,
    ) -> Numbers:
        """Show the numbers until they are as wanted, and return them.

        With `at_most`, only `seconds` without any change of the numbers are too long.
        """
        patience = Patience(seconds, at_most) if at_most else Patience(seconds, seconds)
        while True:
            if self.state.relay_up:
                self.relay.check()
            self._keep_worker()
            self.customers.check()
            numbers = self.progress.read()
            self.state.committed = len(self.customers.memory.committed)
            self.state.rolled_back = len(self.customers.memory.rolled_back)
            self._screen.show(numbers, self.state)
            if until(numbers):
                return numbers
            if patience.is_over(numbers):
                raise TookTooLong(f"{what}: not within {patience.spent:.0f} s")
            sleep(_TICK_SECONDS)

    def behind_the_scenes(self, work: Callable[[], object]) -> Future[object]:
        """Start a server while the numbers go on moving."""
        return self._stagehand.submit(work)

    def replace_relay(self) -> None:
        """Start another relay in place of the one that was killed."""
        self.relay = Relay(self.services, self._folder)

    def go_on(self) -> None:
        """After the play: customers order, and everything runs, until somebody interrupts it."""
        self.worker = Worker(self.services, self._folder)
        with Customers(self.services.database_url, QUIET_SECONDS) as self.customers:
            self.customers.start()
            while True:
                self.relay.check()
                self.customers.check()
                self._keep_worker()
                sleep(_TICK_SECONDS)

    def _keep_worker(self) -> None:
        """Do what a supervisor does for a Celery worker: some end when their broker goes away."""
        if self.worker.has_ended():
            self._restarts += 1
            if self._restarts > _RESTARTS:
                self.worker.check()
            self.worker = Worker(self.services, self._folder)
            self.say("Celery's worker ended with its broker; another one is started", "yellow")
