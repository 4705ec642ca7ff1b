"""Runs what an outbox holds, and what that sends, until nothing is left whose time has come."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar, overload

from celery import Celery, states

from celery_outbox.dispatch import dispatch_of
from celery_outbox.errors import OutboxError, UnusableTarget
from celery_outbox.message import Alike, Parcel
from celery_outbox.nesting import outside_all
from celery_outbox.testing.desk import Desk
from celery_outbox.testing.execution import TaskRun, execute
from celery_outbox.testing.kept import Kept
from celery_outbox.testing.messages import OutboxMessage, Row

T = TypeVar("T")

#: By this Celery looks whether the header of a chord is done, where the backend cannot tell. It
#: asks again after a second; here, whenever nothing else can be run.
UNLOCK: Final = "celery.chord_unlock"
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class EndlessRun(OutboxError, AssertionError):
    """outbox.run() has run {limit} tasks, and they go on sending others: last {last}.

    If that many are meant, say so: outbox.run(limit=...).
    """


@dataclass(frozen=True, slots=True, repr=False)
class Drained(Sequence[TaskRun]):
    """What `outbox.run()` ran, in that order; a task that was retried is there for each run."""

    runs: tuple[TaskRun, ...]
    #: What waits still: tasks whose time has not come, those that this app does not know, events.
    left: tuple[OutboxMessage, ...]

    def __repr__(self) -> str:
        left = [message.task for message in self.left]
        return f"<ran {list(self.runs)!r}, left {left!r}>"

    @property
    def failed(self) -> tuple[TaskRun, ...]:
        """The runs that ended in a failure, for good."""
        return tuple(run for run in self.runs if run.failed)

    @overload
    def __getitem__(self, index: int) -> TaskRun: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TaskRun, ...]: ...
    def __getitem__(self, index: int | slice) -> TaskRun | tuple[TaskRun, ...]:
        return self.runs[index]

    def __iter__(self) -> Iterator[TaskRun]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


@dataclass
class Record:
    """What is known of a test: what was sent in it, what was run, and what is to fail."""

    sent: list[Parcel] = field(default_factory=list)
    taken: dict[int, Row] = field(default_factory=dict)
    failures: list[tuple[str, BaseException]] = field(default_factory=list)

    def sent_ids(self) -> list[str]:
        """Return the ids of what was sent, as far as it passed by here."""
        return [
            message_id
            for parcel in self.sent
            for message_id in (
                [filled.message_id for filled in parcel.filled]  # read late: it grows
                if isinstance(parcel, Alike)
                else [parcel.message_id]
            )
        ]

    def next_failure(self, task: str) -> BaseException | None:
        """Return, once, what the next run of a task is to raise."""
        for position, (name, failure) in enumerate(self.failures):
            if name == task:
                del self.failures[position]
                return failure
        return None


class Drain:
    """One `outbox.run()`."""

    def __init__(self, app: Celery, desk: Desk, record: Record, now: datetime, limit: int) -> None:
        self._app = app
        self._desk = desk
        self._record = record
        self._now = now
        self._limit = limit
        self._kept = Kept(app)
        self._runs: list[TaskRun] = []
        self._imported = False

    async def all(self) -> Drained:
        """Run in rounds: what a task sends comes after what waited with it."""
        unlocked = -1
        with dispatch_of(self._app).storing_in(self._kept):
            while True:
                rows = await self._waiting()
                due = self._first([row for row in rows if self._is_due(row)])
                if not due and unlocked != len(self._runs):
                    due = [row for row in rows if row.task == UNLOCK]
                    unlocked = len(self._runs) + len(due)
                if not due:
                    return Drained(tuple(self._runs), tuple(row.message for row in rows))
                await self._round(due)

    async def _waiting(self) -> list[Row]:
        try:
            return await self._desk.waiting(self._record.sent_ids())
        except UnusableTarget as error:
            cause = self._runs[-1] if self._runs else None
            if cause is None or cause.exception is None:
                raise
            error.add_note(f"It was usable until {cause.task} ran, and raised what is shown above")
            raise error from cause.exception

    def _is_due(self, row: Row) -> bool:
        in_time = row.task != UNLOCK and (row.eta or LONG_AGO) <= self._now
        return in_time and row.is_task and self._knows(row.task)

    @staticmethod
    def _first(due: list[Row]) -> list[Row]:
        """Return what is due by now; else the next one alone, as it may send what comes before."""
        now = datetime.now(UTC)
        due.sort(key=lambda row: (row.eta or LONG_AGO, row.id))
        return [row for row in due if (row.eta or LONG_AGO) <= now] or due[:1]

    def _knows(self, task: str) -> bool:
        if task not in self._app.tasks and not self._imported:
            self._imported = True
            self._app.loader.import_default_modules()  # as a worker does when it starts
        return task in self._app.tasks

    async def _round(self, due: list[Row]) -> None:
        taken: set[str] = set()  # with all the rows that had the same id
        for row in due:
            if row.message_id not in taken:
                if not await self._desk.take(row.message_id):
                    continue  # a task of this round has cancelled it
                taken.add(row.message_id)
            self._record.taken[row.id] = row
            await self._run(row)

    async def _run(self, row: Row) -> None:
        redelivered = False
        while True:
            if len(self._runs) >= self._limit:
                last = Counter(run.task for run in self._runs[-20:]).most_common(1)[0][0]
                raise EndlessRun.about(limit=self._limit, last=last)
            run = await self._once(row, redelivered=redelivered)
            self._runs.append(run)
            for message, outcome in self._kept.take_all():
                stored = await self._desk.put(message)
                outcome.drop_for(stored.pending_id)
            if not run.requeued:
                return
            redelivered = True

    async def _once(self, row: Row, *, redelivered: bool) -> TaskRun:
        moment = max(row.eta or LONG_AGO, datetime.now(UTC))
        if row.expires is not None and row.expires <= moment:
            return TaskRun(row.message, states.REVOKED)
        failure = self._record.next_failure(row.task)
        return await self._apart(
            lambda: execute(self._app, row, redelivered=redelivered, failure=failure)
        )

    async def _apart(self, work: Callable[[], T]) -> T:
        """Do the work of a task: in none of the test's blocks, and where it may begin a loop."""
        context: Context = outside_all()
        if not self._desk.asynchronous:
            return context.run(work)
        result: Awaitable[T] = asyncio.to_thread(context.run, work)
        return await result
