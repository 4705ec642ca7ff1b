"""A transaction that messages can join: what the outbox asks of each kind, and which it knows.

To support another library, write a `Target` for it in a module of its own and name it in TARGETS.
Nothing else knows what a target is made of.
"""

from collections.abc import Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from importlib import import_module
from typing import Any, Final, Protocol

from celery_outbox.errors import UnusableTarget
from celery_outbox.message import Parcel
from celery_outbox.settings import django_in_use
from celery_outbox.statements.commands import Outcome, Rows

#: Top-level package of the target's class -> module with a `target_for(target, schema)`.
TARGETS: Final = {
    "psycopg": "celery_outbox.targets.psycopg",
    "psycopg2": "celery_outbox.targets.psycopg2",
    "sqlalchemy": "celery_outbox.targets.sqlalchemy",
    "django": "celery_outbox.targets.django",
}

#: What several kinds of target say of one that is unusable.
CLOSED: Final = "it is closed"
FAILED: Final = "its transaction has failed and can only be rolled back"
ASYNCHRONOUS: Final = "it is asynchronous: use `async with` here"
SYNCHRONOUS: Final = "it is not asynchronous: use `with` here"

#: What libpq says of a transaction that has failed, and of a connection that is lost.
INERROR, UNKNOWN = 3, 4

#: Proxies around proxies that are looked through.
MAX_PROXIES: Final = 10


class SyncTarget(Protocol):
    """What a connection or session is known by, whichever libraries' types are installed."""

    def rollback(self) -> None:
        """End the transaction."""


class AsyncTarget(Protocol):
    """The same, of one that is asynchronous."""

    def rollback(self) -> Awaitable[None]:
        """End the transaction."""


class Target(Protocol):
    """One transaction of one library. It never begins, commits or rolls back by itself."""

    #: Whether what was put may wait for what the connection does next, to go in before it.
    buffers: bool

    def join(self, *, blocking: bool) -> None:
        """Start taking messages; `blocking` for `with`, not for `async with`.

        Raises UnusableTarget where there is no transaction to join.
        """

    def put(self, message: Parcel) -> Outcome:
        """Take a message, or several that are alike, without waiting for I/O if asynchronous.

        From here on it shares the fate of what else the transaction did at this point, savepoints
        included. Raises UnusableTarget where it could not be committed.
        """

    def put_alone(self, message: Parcel) -> Outcome:
        """Take a message where no block is open, and see that it gets into the transaction."""

    def put_many(self, message: Parcel) -> Outcome:
        """Take one of many messages, as `put` does, or buffer it although `put` would not."""

    def flush(self) -> None:
        """See that what was put is in the transaction, unless that takes an `await`."""

    def leave(self, *, failed: bool) -> None:
        """See that what was put is in the transaction, at the end of a `with` block."""

    async def aleave(self, *, failed: bool) -> None:
        """See that what was put is in the transaction, at the end of an `async with` block."""

    def discard(self) -> None:
        """Forget what is not yet in the transaction: it is about to be rolled back."""

    def begin(self) -> AbstractContextManager[Any]:
        """Return a block that is a transaction, or a savepoint when one is in progress."""

    def abegin(self) -> AbstractAsyncContextManager[Any]:
        """Return the same for `async with`."""

    def in_transaction(self) -> bool:
        """Tell whether a transaction is in progress."""

    def is_given_up(self) -> bool:
        """Tell whether what `begin` began was rolled back inside, or will be, without an error."""

    def fetch(self, query: str, *parameters: object) -> Rows | Awaitable[Rows]:
        """Return the rows of a query from `statements`; an awaitable of an asynchronous target."""


def target_for(target: object, schema: str) -> Target:
    """Return the Target for what a user gave. Raises UnusableTarget for an unknown kind."""
    for candidate in _unwrapped(target):
        if module := _module(candidate):
            found: Target = import_module(module).target_for(candidate, schema)
            return found
    raise UnusableTarget.about(
        target=described(target),
        reason="it is no Connection of psycopg or psycopg2, no Session or Connection of SQLAlchemy"
        " and no alias of a Django database",
    )


def _module(target: object) -> str | None:
    if isinstance(target, str):  # the alias of a Django database
        return TARGETS["django"] if django_in_use() else None
    packages = (base.__module__.partition(".")[0] for base in type(target).__mro__)
    return next((TARGETS[package] for package in packages if package in TARGETS), None)


def _unwrapped(target: object) -> Iterator[object]:
    """Yield what was given, and while that is a proxy what it stands for.

    Agents that watch databases wrap connections as wrapt does; web frameworks have local proxies.
    """
    for _ in range(MAX_PROXIES):
        yield target
        kind = type(target)  # of the proxy itself: it speaks for what is behind in all else
        if (current := getattr(kind, "_get_current_object", None)) is not None:
            target = current.__get__(target, kind)()
        elif (inner := getattr(target, "__wrapped__", None)) is not None:
            target = inner
        else:
            return


def described(target: object) -> str:
    """Return what to call something in an error, which might hold a password: a URL does."""
    if isinstance(target, str):
        return repr(target) if target.isidentifier() else "A text that is no alias"
    if target is None:
        return "None"
    kind = type(target)
    return f"An object of {kind.__module__}.{kind.__qualname__}"
