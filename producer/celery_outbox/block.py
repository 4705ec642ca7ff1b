"""The blocks `using` and `transaction` return: in force for the code inside, refused after the end.

Context variables are copied into threads and asyncio tasks, which may outlive the block. What is
sent there later raises: nothing would ever store it. Blocks may end in any order; which of several
the running code is in, nesting.py knows.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from celery.exceptions import Ignore

from celery_outbox.errors import OutboxClosed
from celery_outbox.held import ROLLED_BACK, Held, drop_all, run_all
from celery_outbox.message import Parcel
from celery_outbox.nesting import Nested, blocks_on, innermost
from celery_outbox.statements.commands import Outcome
from celery_outbox.targets.target import Target

T = TypeVar("T")


def current_block() -> "Using[Any] | None":
    """Return the innermost block the running code is in or was started in, open or not.

    Raises AmbiguousBlock where that cannot be known.
    """
    return cast("Using[Any] | None", innermost())


def holder(target: object | None) -> "Using[Any] | None":
    """Return the transaction whose commit is waited for by what is held here, if one is.

    It is that of `target`, or else of the innermost block.
    """
    if target is not None:
        return _holder_on(target)
    inner = current_block()
    return _holder_on(inner._given) if inner is not None and inner._open else None


def _holder_on(given: object) -> "Using[Any] | None":
    blocks = cast("list[Using[Any]]", blocks_on(given))
    return next((block for block in blocks if block.held is not None), None)


class Using(Nested, AbstractContextManager[T], AbstractAsyncContextManager[T], Generic[T]):
    """While it is open, what is sent joins a transaction that somebody else ends."""

    def __init__(self, given: T, target: Target) -> None:
        super().__init__(given)
        self.target = target
        #: Whether Ignore commits, when a task replaced itself inside; and whether one did. Also set
        #: by celery_inbox, whose `@idempotent` commits then.
        self.commits_replacement = False
        self.replaced = False
        self._replacements: list[Parcel] = []
        #: What waits for the commit of this block, where it is one that commits or is within one.
        self.held: list[Held] | None = None
        self._given: T = given

    def put(self, message: Parcel) -> Outcome:
        """Hand a message to the transaction. Raises OutboxClosed or UnusableTarget."""
        self.check_open(message.task)
        return self.target.put(message)

    def committing(self) -> "Using[Any] | None":
        """Return the block around this one, or this one, which commits although Ignore is raised.

        It is on the same target, so savepoints apart all of the two is one transaction.
        """
        blocks = cast("list[Using[Any]]", blocks_on(self._given))
        return next((block for block in blocks if block.commits_replacement), None)

    def put_replacement(self, message: Parcel) -> Outcome:
        """Put what the running task replaces itself by, as this block ends without an error.

        Not at once: the Ignore that follows rolls back each savepoint between here and there, and
        all that was put in it. Raises OutboxClosed.
        """
        self.check_open(message.task)
        self.replaced = True
        self._replacements.append(message)
        return Outcome(message)

    def check_open(self, task: str) -> None:
        """Raise OutboxClosed where the block has ended."""
        if not self._open:
            raise OutboxClosed.about(task=task)

    def __enter__(self) -> T:
        self.check_not_open()
        self.target.join(blocking=True)
        self._enter()
        return self._given

    async def __aenter__(self) -> T:
        self.check_not_open()
        self.target.join(blocking=False)
        self._enter()
        return self._given

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit()
        try:
            self._put_replacements(failed=error is not None)
        except BaseException:
            self.target.leave(failed=True)
            raise
        self.target.leave(failed=error is not None)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit()
        try:
            self._put_replacements(failed=error is not None)
        except BaseException:
            await self.target.aleave(failed=True)
            raise
        await self.target.aleave(failed=error is not None)

    def _put_replacements(self, *, failed: bool) -> None:
        replacements, self._replacements = self._replacements, []
        if not failed:
            for message in replacements:
                self.target.put(message)


class Transaction(AbstractContextManager[T], AbstractAsyncContextManager[T], Generic[T]):
    """A transaction, or a savepoint within one, that what is sent inside joins.

    A task that replaces itself raises Ignore although all went well: that commits, together with
    the replacement, unless an outer transaction is in progress which is not such a block, and would
    roll back all the same.
    """

    def __init__(self, given: T, target: Target) -> None:
        self._using = Using(given, target)
        self._target = target
        self._block: AbstractContextManager[T]
        self._ablock: AbstractAsyncContextManager[T]
        self._given_up = False

    def __enter__(self) -> T:
        self._using.check_not_open()
        self._block = self._run()
        return self._block.__enter__()

    async def __aenter__(self) -> T:
        self._using.check_not_open()
        self._ablock = self._arun()
        return await self._ablock.__aenter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._block.__exit__(kind, error, trace)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._ablock.__aexit__(kind, error, trace)

    @contextmanager
    def _run(self) -> Iterator[T]:
        with (
            self._holding(),
            self._target.begin(),
            self._using as given,
            self._judging() as replaced,
        ):
            yield given
        for ignore in replaced:
            raise ignore

    @asynccontextmanager
    async def _arun(self) -> AsyncIterator[T]:
        with self._holding():
            async with self._target.abegin(), self._using as given:
                with self._judging() as replaced:
                    yield given
        for ignore in replaced:
            raise ignore

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Run what was held back inside after the commit; that of a savepoint goes further out."""
        commits = self._using.commits_replacement = not self._target.in_transaction()
        outer = _holder_on(self._using._given)
        held: list[Held] = []
        self._using.held = None if outer is None and not commits else held
        try:
            yield
        except BaseException:
            drop_all(held, ROLLED_BACK)
            raise
        finally:
            self._using.held = None
        if self._given_up:
            drop_all(held, ROLLED_BACK)
            return
        if outer is not None and outer.held is not None:
            outer.held += held
            return
        run_all(held)

    @contextmanager
    def _judging(self) -> Iterator[list[Ignore]]:
        """Let errors pass, which roll back, but keep the Ignore of a replacement for later.

        Some errors go no further than the block they roll back, as psycopg.Rollback.
        """
        replaced: list[Ignore] = []
        self._given_up = True
        try:
            yield replaced
            self._given_up = self._target.is_given_up()
        except Ignore as ignore:
            committing = self._using.committing()
            if committing is None or not committing.replaced:
                self._target.discard()
                raise
            replaced.append(ignore)
            self._given_up = self._target.is_given_up()
        except BaseException:
            self._target.discard()
            raise
