"""`outbox` in a test: what was sent is claimed, and run, with neither broker nor worker."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, overload

from celery import Celery, current_app

from celery_outbox.dispatch import Decision, listeners
from celery_outbox.message import Parcel
from celery_outbox.outbox import Outbox
from celery_outbox.targets.target import AsyncTarget, SyncTarget
from celery_outbox.testing.asserting import Claim, by_id, check_nothing_sent, check_sent, task_name
from celery_outbox.testing.desk import Desk, finished
from celery_outbox.testing.drain import Drain, Drained, Record
from celery_outbox.testing.messages import OutboxMessage, chosen_target
from celery_outbox.testing.results import kept_in_memory

T = TypeVar("T")

#: Tasks that one run() runs at most, unless it is told another number.
LIMIT: Final = 1000


class FailedOnPurpose(Exception):
    """What a task raises that fail_next() was given no exception for."""


class _Tester:
    """What testers of both kinds have in common."""

    def __init__(
        self, app: Celery, target: object | None, record: Record, now: datetime | None = None
    ) -> None:
        self._app = app
        self._target = target
        self._record = record
        self._now = now

    def fail_next(
        self,
        task: object,
        exception: BaseException | type[BaseException] = FailedOnPurpose,
        *,
        times: int = 1,
    ) -> None:
        """Have the next run of `task`, given as a task or by name, raise instead of doing its work.

        What follows is real: its retries (`autoretry_for` as well), errbacks, state and result.
        Called again, it is about the run after that; `times` stands for as many calls.
        """
        name = task_name(task)
        if name not in self._app.tasks:
            raise ValueError(f"fail_next(): the app {self._app.main!r} has no task {name!r}")
        raised = exception() if isinstance(exception, type) else exception
        self._record.failures += [(name, raised)] * times

    def at(self, time: datetime | timedelta) -> Self:
        """Return the same outbox at another time: `outbox.at(timedelta(hours=1)).run()`.

        Given as a time with a time zone, or as how long from now. A run there runs the tasks with
        an `eta` or `countdown` up to then, in the order of their times. Clocks stay as they are.
        """
        now = datetime.now(UTC) + time if isinstance(time, timedelta) else time
        if now.tzinfo is None:
            raise ValueError("at(): the time needs a time zone, such as datetime.now(UTC) has")
        return type(self)(self._app, self._target, self._record, now)

    def _desk(self, who: str) -> Desk:
        return Desk(self._app, chosen_target(self._app, self._target, who))

    async def _run(self, *, raise_errors: bool, limit: int) -> Drained:
        now = self._now or datetime.now(UTC)
        purposes = [failure for _, failure in self._record.failures]
        drain = Drain(self._app, self._desk("outbox.run()"), self._record, now, limit)
        drained = await drain.all()
        if raise_errors:
            _raise_failures(drained, purposes)
        return drained

    async def _sent(self) -> list[OutboxMessage]:
        rows = await self._desk("outbox").waiting(self._record.sent_ids())
        found = self._record.taken | {row.id: row for row in rows}
        return by_id((number, row.message) for number, row in found.items())

    async def _assert_sent(self, claim: Claim, count: int | None) -> list[OutboxMessage]:
        return check_sent(self._app, claim, count, await self._sent())

    async def _assert_nothing_sent(self) -> None:
        check_nothing_sent(await self._sent())


class AsyncOutboxTester(_Tester):
    """The outbox of a test on an asynchronous target; `outbox.on(async_session)` returns one."""

    async def run(self, *, raise_errors: bool = True, limit: int = LIMIT) -> Drained:
        """Run what waits; see OutboxTester.run. Tasks run in a thread, with no event loop."""
        return await self._run(raise_errors=raise_errors, limit=limit)

    async def sent(self) -> list[OutboxMessage]:
        """Return what was sent in this test; see OutboxTester.sent."""
        return await self._sent()

    async def assert_sent(
        self,
        task: object,
        *,
        args: Sequence[Any] | Mapping[str, Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        count: int | None = None,
    ) -> list[OutboxMessage]:
        """Claim that a task was sent; see OutboxTester.assert_sent."""
        return await self._assert_sent(Claim(task_name(task), args, kwargs, queue), count)

    async def assert_nothing_sent(self) -> None:
        """Claim that nothing was sent in this test."""
        await self._assert_nothing_sent()


class OutboxTester(_Tester):
    """The outbox of a test: what was sent in it, and what comes of that when it is run.

    With pytest the fixture `outbox`, with unittest and Django `self.outbox` of OutboxTestMixin.
    """

    @overload
    def on(self, target: SyncTarget | str) -> "OutboxTester": ...
    @overload
    def on(self, target: AsyncTarget) -> AsyncOutboxTester: ...
    def on(self, target: Any) -> "OutboxTester | AsyncOutboxTester":
        """Return the same outbox as `target` sees it, which is what `using` takes."""
        kind = AsyncOutboxTester if Desk(self._app, target).asynchronous else OutboxTester
        return kind(self._app, target, self._record, self._now)

    def run(self, *, raise_errors: bool = True, limit: int = LIMIT) -> Drained:
        """Run every task that waits, and what these send, until none is left; return what ran.

        Run is what the transaction in progress would send, and what this test has committed
        before; with no transaction in progress, all that waits in the database. A task is taken
        out of the outbox as it is run, in this thread, from the bytes a worker would get. What it
        sends, canvas and retries included, is put in there and run as well. Tasks with an `eta`
        that has not come are left; `at` runs them.

        A task that fails does not keep others from running. At the end its exception is raised
        (of several, an ExceptionGroup), unless fail_next() asked for it, or `raise_errors` is
        False. Raises EndlessRun after `limit` tasks.
        """
        return finished(self._run(raise_errors=raise_errors, limit=limit))

    def sent(self) -> list[OutboxMessage]:
        """Return what was sent in this test, oldest first: what waits, and what run() has run."""
        return finished(self._sent())

    def assert_sent(
        self,
        task: object,
        *,
        args: Sequence[Any] | Mapping[str, Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        count: int | None = None,
    ) -> list[OutboxMessage]:
        """Claim that `task`, given as a task or by name, was sent; return its messages.

        `args` and `kwargs` are those of the call (of an event, `args` is its payload); `queue` is
        where it goes; `count` is how often it was sent, else at least once. What is left out does
        not matter. An AssertionError shows what was sent instead.
        """
        return finished(self._assert_sent(Claim(task_name(task), args, kwargs, queue), count))

    def assert_nothing_sent(self) -> None:
        """Claim that nothing was sent in this test, be it a task or an event."""
        finished(self._assert_nothing_sent())


class OutboxTest(AbstractContextManager["OutboxTester | AsyncOutboxTester"]):
    """The time of one test: what is sent is noted, and results are kept in memory.

    `results="app"` leaves the app's own result backend in its place.
    """

    def __init__(
        self,
        app: Celery | None = None,
        target: object | None = None,
        *,
        results: Literal["memory", "app"] = "memory",
    ) -> None:
        self._app: Any = app if app is not None else current_app
        self._target = target
        self._results = results
        self._record = Record()
        self._open = ExitStack()

    def __enter__(self) -> "OutboxTester | AsyncOutboxTester":
        app: Any = self._app
        if hasattr(type(app), "_get_current_object"):
            app = app._get_current_object()
        if not isinstance(getattr(app, "outbox", None), Outbox):
            raise TypeError(
                f"the app {app.main!r} has no outbox: make it an OutboxCelery. If another app is"
                " meant, name it by the fixture outbox_app, or by outbox_app of the test class"
            )
        if self._results == "memory":
            self._open.enter_context(kept_in_memory(app))
        listeners.append(self._note)
        self._open.callback(listeners.remove, self._note)
        tester = OutboxTester(app, self._target, self._record)
        return tester if self._target is None else tester.on(self._target)  # type: ignore[call-overload]  # told apart there

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def _note(self, _app: Celery, _decision: Decision, message: Parcel) -> None:
        self._record.sent.append(message)


def _raise_failures(drained: Drained, purposes: list[BaseException]) -> None:
    """Raise what tasks failed with, all but what they were made to fail with."""
    failures = []
    for run in drained.failed:
        error = run.exception
        if error is None or any(error is purpose for purpose in purposes):
            continue
        error.add_note(f"Raised by {run.task} [{run.task_id}], which outbox.run() has run.")
        failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        message = f"{len(failures)} tasks that outbox.run() has run have failed"
        raise BaseExceptionGroup(message, failures)
