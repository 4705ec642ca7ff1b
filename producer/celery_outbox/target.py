"""A transaction that messages can join: what the outbox asks of each kind, and which it knows.

To support another library, write a `Target` for it in a module of its own and name it in TARGETS.
Nothing else knows what a target is made of.
"""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from importlib import import_module
from typing import Any, Final, Protocol

from celery_outbox.errors import UnusableTarget
from celery_outbox.message import Message

#: Top-level package of the target's class -> module with a `target_for(target, schema)`.
TARGETS: Final = {"psycopg": "celery_outbox.psycopg_target"}


class Target(Protocol):
    """One transaction of one library. It never begins, commits or rolls back by itself."""

    def join(self, *, blocking: bool) -> None:
        """Start taking messages; `blocking` for `with`, not for `async with`.

        Raises UnusableTarget where there is no transaction to join.
        """

    def put(self, message: Message) -> None:
        """Take a message, without waiting for I/O where the target is asynchronous.

        From here on it shares the fate of what else the transaction did at this point, savepoints
        included. Raises UnusableTarget where it could not be committed.
        """

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

    def cancel(self, message_id: str) -> bool | Awaitable[bool]:
        """Take back a pending message; an awaitable where the target is asynchronous."""


def target_for(target: object, schema: str) -> Target:
    """Return the Target for a user's connection. Raises UnusableTarget for an unknown kind."""
    for base in type(target).__mro__:
        if module := TARGETS.get(base.__module__.partition(".")[0]):
            found: Target = import_module(module).target_for(target, schema)
            return found
    raise UnusableTarget.about(
        target=repr(target)[:200], reason="it is not a psycopg Connection or AsyncConnection"
    )
