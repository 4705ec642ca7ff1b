"""Every error the producer raises. The docstring is the message, and says what to do.

All but `DatabaseUnavailable` are permanent: the same call fails again until something is changed.
"""

from typing import Self

from kombu.exceptions import EncodeError, OperationalError


class OutboxError(Exception):
    """The outbox could not take a message."""

    @classmethod
    def about(cls, **facts: object) -> Self:
        """Return the error with its docstring, completed by `facts`, as the message."""
        return cls(" ".join((cls.__doc__ or "").split()).format(**facts))


class NoTransaction(OutboxError):
    """{task} was sent with no transaction to join.

    Send it inside `with app.outbox.using(connection)`, give `outbox=connection` to apply_async(),
    or set OUTBOX_DATABASE_URL to store it in a short transaction of its own. In Django a Postgres
    named `default` is used by itself, and any other that OUTBOX_DATABASE_ALIAS names.
    """


class OutboxClosed(OutboxError):
    """{task} was sent to a transaction whose block has ended: nothing would have stored it.

    A thread or asyncio task outlived the `using` block it was started in.
    Give it a `using` block of its own, or wait for it inside the block.
    """


class AmbiguousBlock(OutboxError):
    """It cannot be told which of several open blocks this send belongs to.

    Generators that are not running now hold them open, each for a transaction of its own.
    Name the transaction: apply_async(..., outbox=connection).
    """


class UnusableTarget(OutboxError):
    """{target} cannot take messages now: {reason}."""


class NoChannel(OutboxError, AttributeError):
    """The outbox's producer has no channel to the broker, and {operation} was asked of one.

    For what a message needs, give declare=[...] to publish(): the relay declares it. For anything
    else take a connection: `with app.connection_for_write() as connection`.
    """


class UnsupportedOption(OutboxError):
    """{task} was sent with {option}: {reason}."""


class UnpublishableMessage(OutboxError, EncodeError):
    """{task} cannot be sent: {field} {problem}."""


class InvalidSetting(OutboxError):
    """{setting} {problem}."""


class OutboxNotReady(OutboxError):
    """The outbox in schema {schema} cannot be written: {reason}. {remedy}."""


class RowRefused(OutboxError):
    """The database refused to store {tasks}: constraint {constraint} does not hold."""


class DatabaseUnavailable(OutboxError, OperationalError):
    """{task} may not have been stored: the outbox database did not answer ({reason}).

    This is transient. Sending again with the same task_id cannot run the task twice where the
    worker is idempotent.
    """
