"""Remembers a message id in the transaction that holds its effects, so both exist or neither.

The primary key of inbox.processed decides every race: whoever inserts first runs, and whoever
comes second waits there until the first has committed or rolled back.
"""

from dataclasses import dataclass
from typing import Any

from celery.utils.log import get_logger
from kombu.utils import json as celery_json

from celery_inbox.errors import BackToQueue, InboxMissing, MessageIdReused, ResultNotJSON
from celery_inbox.targets import Target
from celery_inbox.transient import LOCK_NOT_AVAILABLE, UNDEFINED_TABLE, sqlstate

logger = get_logger(__name__)

# The insert alone may wait no longer than `wait`: lock_timeout is set as the source row is read
# and the session's own is put back as the new row is returned. One round trip, and the task
# body never sees our deadline. A duplicate returns no row.
_CLAIM = """
WITH deadline AS MATERIALIZED (
    SELECT current_setting('lock_timeout') AS theirs, set_config('lock_timeout', %s, true)
)
INSERT INTO inbox.processed (message_id, task)
SELECT %s, %s FROM deadline
ON CONFLICT DO NOTHING
RETURNING set_config('lock_timeout', (SELECT theirs FROM deadline), true)
"""

# As text: drivers differ in how they decode json, and NULL must stay apart from 'null'.
_RECALL = "SELECT task, result::text FROM inbox.processed WHERE message_id = %s"

_RECORD = "UPDATE inbox.processed SET result = %s::json WHERE message_id = %s"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One arrival of a message: the key it is remembered by, and the task it is for."""

    key: str
    task: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """An earlier delivery committed; `result` is its JSON, None if it was replaced."""

    result: str | None

    def value(self) -> Any:
        """The result as the first run returned it."""
        return None if self.result is None else celery_json.loads(self.result)


def claim(target: Target, delivery: Delivery, wait: float) -> Remembered | None:
    """Insert the inbox row; return what is remembered instead if the message already ran."""
    while not _inserted(target, delivery, wait):
        row = target.execute(_RECALL, (delivery.key,))
        if row is None:  # purged between the two statements
            continue
        task, result = row
        if task != delivery.task:
            raise MessageIdReused(
                f"message id {delivery.key!r} was processed as task {task!r} and now arrives for "
                f"{delivery.task!r}: send each with a task_id of its own, or use key="
            )
        return Remembered(result)
    return None


def record(target: Target, delivery: Delivery, result: str | None) -> None:
    """Store the result; fails, as it must, when the body left the transaction broken."""
    target.execute(_RECORD, (result, delivery.key))


def encode(task: str, result: object) -> str:
    """The result as Celery's own JSON serialiser writes it."""
    try:
        return celery_json.dumps(result, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ResultNotJSON(
            f"{task} returned {type(result).__qualname__}, which JSON cannot hold ({error}); its "
            "effects were rolled back. Return plain values: a redelivery is answered with them"
        ) from error


def _inserted(target: Target, delivery: Delivery, wait: float) -> bool:
    timeout = f"{max(1, round(wait * 1000))}ms"  # 0 would mean for ever
    try:
        return target.execute(_CLAIM, (timeout, delivery.key, delivery.task)) is not None
    except Exception as error:
        state = sqlstate(error)
        if state == UNDEFINED_TABLE:
            raise InboxMissing(
                "the database has no table inbox.processed: run `outbox-migrate up` on it"
            ) from error
        if state == LOCK_NOT_AVAILABLE:
            logger.warning(
                "%s[%s] is still running elsewhere after %gs: back to the queue",
                delivery.task,
                delivery.key,
                wait,
            )
            raise BackToQueue("its first delivery is still running") from error
        raise
