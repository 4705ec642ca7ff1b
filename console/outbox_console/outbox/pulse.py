"""Feels the outbox's pulse: one sample every few seconds for all who look, an hour of them kept.

It costs the database the same whether ten people look or nobody does. Where the database does not
answer, the problem is what is shown, and the next sample is tried all the same.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from outbox_console.errors import Problem
from outbox_console.outbox import samples
from outbox_console.outbox.samples import Mark, Sample
from outbox_console.people.person import VIEWER
from outbox_console.postgres.database import Database, Session

_log: Final = logging.getLogger(__name__)

#: Seconds from one sample to the next.
PERIOD: Final = 2.0
#: An hour of them.
KEPT: Final = 1800


@dataclass(frozen=True, slots=True)
class Beat:
    """What is known now: a sample, or the problem there is; `number` grows with each."""

    number: int
    sample: Sample | None
    problem: Problem | None


class Pulse:
    """Samples in the background, as long as the event loop runs that first asked."""

    def __init__(self, database: Database, history: Iterable[Sample] = ()) -> None:
        self._database = database
        self._history: deque[Sample] = deque(history, maxlen=KEPT)
        self._mark: Mark | None = None
        self._beat = Beat(0, None, None)
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    @property
    def history(self) -> list[Sample]:
        """The samples of the last hour, oldest first."""
        return list(self._history)

    @property
    def dead(self) -> int:
        """How many are dead, as far as is known."""
        return self._beat.sample.dead if self._beat.sample else 0

    def start(self) -> None:
        """Begin, unless it has begun already in this event loop."""
        if self._task is None or self._task.done() or self._task.get_loop() is not _loop():
            self._news = asyncio.Event()
            self._task = _loop().create_task(self._go_on())

    async def stop(self) -> None:
        """End."""
        if self._task is not None and self._task.get_loop() is _loop():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def now(self) -> Beat:
        """What is known; the first time, once something is."""
        self.start()
        return self._beat if self._beat.number else await self.after(0)

    async def after(self, number: int) -> Beat:
        """The beat that follows one that was seen."""
        self.start()
        while self._beat.number <= number:
            await self._news.wait()
        return self._beat

    async def _go_on(self) -> None:
        while True:
            began = _loop().time()
            sample, problem = None, None
            try:
                sample, self._mark = await self._database.read(VIEWER, self._take)
                self._history.append(sample)
            except Problem as found:
                problem = found
            except Exception as error:  # or all who wait for a beat would wait for ever
                _log.exception("the outbox could not be sampled")
                kind = type(error).__name__
                problem = Problem(500, "The console has failed", f"See its log: {kind}.")
            self._beat = Beat(self._beat.number + 1, sample, problem)
            news, self._news = self._news, asyncio.Event()
            news.set()
            await asyncio.sleep(max(0.2, PERIOD - (_loop().time() - began)))

    async def _take(self, session: Session) -> tuple[Sample, Mark]:
        mark = self._mark or await samples.begin(session)
        return await samples.take(session, mark)


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
