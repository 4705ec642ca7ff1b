"""What the inbox raises.

All but `BackToQueue` are permanent: the same delivery fails again until a person acts. None
repeats a value of the message.
"""

from celery.exceptions import Ignore, Reject


class BackToQueue(Reject, Ignore):
    """The message cannot be dealt with now: it is delivered again.

    As it is an Ignore, too, `autoretry_for` lets it pass, instead of spending a retry on it.
    """

    def __init__(self, reason: str, requeue: bool = True) -> None:
        super().__init__(reason, requeue)


class InboxError(Exception):
    """Base of the errors below; each message says what to change."""


class InboxMissing(InboxError):
    """The database has no inbox. Way out: `outbox-migrate up`, or point `connect` elsewhere."""


class MessageIdReused(InboxError):
    """Two different tasks were sent with one id. Way out: an id of its own for each, or `key=`."""


class ResultNotJSON(InboxError, TypeError):
    """The task returned what JSON cannot hold, so its effects were rolled back.

    Way out: return plain values; a redelivery must be answered with the same result.
    """


class TransactionEnded(InboxError):
    """The body ended its own transaction: it committed, rolled back or closed its connection.

    The inbox row was not committed with a part of the effects. Way out: leave the transaction to
    `@idempotent`; a savepoint (`begin_nested()`, `conn.transaction()`, `atomic()`) is fine.
    """


class UnusableConnection(InboxError, TypeError):
    """What `@idempotent` was given leads to no connection it can work on."""
