"""Remembers a message id in the transaction that holds its effects, so both exist or neither.

The primary key of inbox.processed decides every race: whoever inserts first runs, and whoever
comes second waits there until the first has committed or rolled back. From `claim` to `finish` the
transaction carries the mark of a task at work, and the database refuses to commit it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery.utils.log import get_logger
from kombu.utils import json as celery_json

from celery_inbox.errors import (
    BackToQueue,
    InboxError,
    InboxMissing,
    MessageIdReused,
    ResultNotJSON,
    TransactionEnded,
)
from celery_inbox.target import Row, Statement, Target
from celery_inbox.transient import (
    TRANSACTION_ENDED,
    UNDEFINED_FUNCTION,
    UNDEFINED_TABLE,
    WAIT_ENDED,
    sqlstate,
)

logger = get_logger(__name__)

#: None, as JSON.
NOTHING = "null"

# The insert alone may wait no longer than `wait`: lock_timeout is set as the source row is read
# and the session's own is put back as the new row is returned. The same way the transaction is
# marked as that of a task at work. One round trip, and the task body never sees our deadline.
# The result is what most tasks return, for which the row need not be written again.
# A duplicate returns no row.
_CLAIM = """
WITH this AS MATERIALIZED (
    SELECT current_setting('lock_timeout') AS theirs, set_config('lock_timeout', %s, true),
           set_config('celery_inbox.running', %s, true) AS message_id
)
INSERT INTO inbox.processed (message_id, task, result)
SELECT message_id, %s, 'null'::json FROM this
ON CONFLICT DO NOTHING
RETURNING set_config('lock_timeout', (SELECT theirs FROM this), true)
"""

# As text: drivers differ in how they decode json, and NULL must stay apart from 'null'.
# Nothing of this message runs any more: the transaction may go on, where it is not ours to end.
_RECALL = """
SELECT task, result::text FROM set_config('celery_inbox.running', '', true), inbox.processed
WHERE message_id = %s
"""

_FINISH = "SELECT inbox.finish(%s::text, %s::json)"
_FINISH_WITHOUT_RESULT = """
WITH replaced AS (UPDATE inbox.processed SET result = NULL WHERE message_id = %s)
SELECT inbox.finish(%s::text, NULL)
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One arrival of a message: the key it is remembered by, the task it is for, and its id."""

    key: str
    task: str
    message_id: str

    def __str__(self) -> str:
        """For logs and errors: a key may be made of arguments."""
        return f"{self.task}[{self.message_id}]"


@dataclass(frozen=True, slots=True)
class Remembered:
    """An earlier delivery committed; `result` is its JSON, None if it was replaced."""

    result: str | None

    def value(self) -> Any:
        """The result as the first run returned it."""
        return None if self.result is None else celery_json.loads(self.result)


def claim(target: Target, delivery: Delivery, wait: float) -> Remembered | None:
    """Begin, and insert the inbox row; return what is remembered if the message already ran."""
    timeout = f"{max(1, round(wait * 1000))}ms"  # 0 would mean for ever
    statement = Statement(_CLAIM, (timeout, delivery.key, delivery.task))
    ask: Callable[[Statement], Row | None] = target.begin
    while True:
        try:
            inserted = ask(statement)
        except Exception as error:
            _explain(error, delivery, wait)
            raise
        if inserted is not None:
            return None
        row = target.execute(Statement(_RECALL, (delivery.key,)))
        if row is not None:
            return _remembered(delivery, *row)
        ask = target.execute  # purged between the two statements


def finish(delivery: Delivery, result: str | None) -> Statement:
    """The last statement: stores the result; fails where the claim's transaction is gone."""
    if result is None:
        return Statement(_FINISH_WITHOUT_RESULT, (delivery.key, delivery.key))
    return Statement(_FINISH, (delivery.key, None if result == NOTHING else result))


def encode(task: str, result: object) -> str:
    """The result as Celery's own JSON serialiser writes it."""
    try:
        return celery_json.dumps(result, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ResultNotJSON(
            f"{task} returned {type(result).__qualname__}, which JSON cannot hold "
            f"({type(error).__qualname__}); its effects were rolled back. Return plain values: a "
            "redelivery is answered with them"
        ) from None  # the error's text may repeat the value


def named(error: BaseException) -> InboxError | None:
    """The inbox' own name for an error of the database, if it has one."""
    state = sqlstate(error)
    if state == TRANSACTION_ENDED:
        return TransactionEnded(
            "the task tried to commit before it had ended, or had ended its transaction itself "
            "(commit, rollback, close or autocommit): leave the transaction to @idempotent. "
            "Nothing of it was committed together with its inbox row"
        )
    if state == UNDEFINED_FUNCTION and "inbox.finish" in str(error):
        return InboxMissing(
            "the database has no function inbox.finish: run `outbox-migrate up` on it"
        )
    return None


def _remembered(delivery: Delivery, task: str, result: str | None) -> Remembered:
    if task == delivery.task:
        return Remembered(result)
    raise MessageIdReused(
        f"message id {delivery.message_id!r} was processed as task {task!r} and now arrives for "
        f"{delivery.task!r}: send each with a task_id of its own, or use key="
    )


def _explain(error: Exception, delivery: Delivery, wait: float) -> None:
    """Raise what the claim's error means, where that is known."""
    state = sqlstate(error)
    if state == UNDEFINED_TABLE:
        raise InboxMissing(
            "the database has no table inbox.processed: run `outbox-migrate up` on it"
        ) from None
    if state == TRANSACTION_ENDED:
        raise TransactionEnded(
            "@idempotent was given a connection in autocommit, where every statement is its own "
            "transaction: switch it off (in SQLAlchemy: no isolation_level='AUTOCOMMIT')"
        ) from None
    if state in WAIT_ENDED:
        logger.warning("%s is still running elsewhere after %gs: back to the queue", delivery, wait)
        raise BackToQueue("its first delivery is still running") from None
