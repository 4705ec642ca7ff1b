"""Runs a task body once per message: its effects and its inbox row commit together, or neither.

An attempt is one transaction. What an attempt has failed by decides whether there is another.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any

from celery import Task  # quoted below: in Celery 5.4 it takes no parameters at run time
from celery.exceptions import Ignore
from celery.utils.log import get_logger

from celery_inbox import store, transient
from celery_inbox.errors import BackToQueue, InboxError, TransactionEnded
from celery_inbox.store import Delivery
from celery_inbox.target import Target, ended_early
from celery_inbox.targets import opened
from celery_inbox.transient import Verdict

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the body ended, now or on an earlier delivery: with a value, or with Ignore."""

    value: Any = None
    ignore: Ignore | None = None

    def deliver(self) -> Any:
        """Return the value, or raise what it ended with."""
        if self.ignore is not None:
            raise self.ignore
        return self.value


@dataclass(slots=True)
class Run:
    """One delivery of a message to a task, over as many attempts as it takes."""

    task: "Task[..., Any]"
    delivery: Delivery | None  # None for a direct or eager call: no message, no twin
    connect: Callable[[], Any]
    wait: float
    body: Callable[[Any], Any]
    stored: Callable[[Any], str]  # a result as JSON
    _claiming: bool = False

    def persistently(self) -> Outcome:
        """Attempt again, with pauses, while only the database stood in the way."""
        give_up = time.monotonic() + transient.PATIENCE
        for number in count(1):
            try:
                return self._attempt()
            except Exception as error:
                verdict = transient.judge(error, claiming=self._claiming)
                late = time.monotonic() > give_up
                if verdict is Verdict.MISTAKE:
                    raise
                if verdict is Verdict.OUTAGE and late and self.delivery is not None:
                    logger.warning(
                        "%s: back to the queue, no database (%s)",
                        self.delivery,
                        transient.described(error),
                    )
                    raise BackToQueue("the database is away") from None
                if late or (number >= transient.ATTEMPTS and verdict is not Verdict.OUTAGE):
                    raise
                logger.info(
                    "%s: attempt %d rolled back (%s)",
                    self.delivery or self.task.name,
                    number,
                    transient.described(error),
                )
            time.sleep(transient.pause(number))
        raise AssertionError("count() never ends")

    def _attempt(self) -> Outcome:
        self._claiming = True
        with opened(self.connect) as target:
            try:
                return self._transaction(target)
            except BaseException as error:
                ended = target.ended()
                _roll_back(target, error)
                if _asked_to_roll_back(error):
                    return Outcome()
                # The database's own texts may repeat what the task was given: none is passed on.
                if name := _named(error, ended):
                    raise name.with_traceback(error.__traceback__) from None
                raise

    def _transaction(self, target: Target) -> Outcome:
        """Run the body in the target's transaction, unless this message was seen before."""
        delivery = self.delivery
        earlier = None
        if delivery is None:
            target.begin(None)
        else:
            earlier = store.claim(target, delivery, self.wait)
        self._claiming = False
        if earlier is not None:
            target.commit(None)
            logger.info("%s ran before: answering with its result", delivery)
            # What was replaced has no result of its own: its successor reports one.
            return Outcome(earlier.value()) if earlier.result else Outcome(ignore=Ignore())
        outcome = self._joined(target)
        last = None
        if delivery is not None:
            result = None if outcome.ignore else self.stored(outcome.value)
            last = store.finish(delivery, result)
        target.commit(last)
        return outcome

    def _joined(self, target: Target) -> Outcome:
        """Run the body; tasks it sends through an outbox are rows in the same transaction.

        Also the one it replaces itself by: an attempt that is rolled back must not have sent it.
        """
        block = joined(self.task, target.handle)
        if not isinstance(block, nullcontext):
            block.commits_replacement = True
        with block:
            try:
                return Outcome(self.body(target.handle))
            except Ignore as ignore:  # an ending, not a failure: what was done before it stays
                return Outcome(ignore=ignore)


def joined(task: "Task[..., Any]", handle: Any) -> Any:
    """Return a block in which what is sent through an outbox is part of this transaction."""
    outbox = getattr(task.app, "outbox", None)
    return nullcontext() if outbox is None else outbox.using(handle)


def _roll_back(target: Target, error: BaseException) -> None:
    """End the transaction; that this fails, as where there is none left, is not what went wrong."""
    try:
        target.roll_back(error)
    except Exception as another:
        logger.debug("the rollback failed, too (%s)", transient.described(another))


def _named(error: BaseException, ended: bool) -> InboxError | None:
    """The inbox' own name for an error of the database or of a connection that the body closed."""
    if not isinstance(error, Exception) or isinstance(error, InboxError):
        return None
    if ended and transient.judge(error) is Verdict.OUTAGE:
        return TransactionEnded(ended_early())
    return store.named(error)


def _asked_to_roll_back(error: BaseException) -> bool:
    """`raise psycopg.Rollback()` leaves a block of psycopg's without effects, and is no error."""
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(error, psycopg.Rollback)
