"""Writes receipts to the database beside the work, in batches, from a thread of its own.

Whoever notes an ending only appends to a queue: no task waits for a database, and none fails over
it. While it is away, receipts wait in memory, and of too many the oldest are given up and counted.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from celery.utils.log import get_logger

from celery_inbox import transient
from celery_inbox.endings import Ending
from celery_inbox.target import Statement
from celery_inbox.targets import opened
from celery_inbox.transient import UNDEFINED_FUNCTION, UNDEFINED_SCHEMA, sqlstate

logger = get_logger(__name__)

#: Seconds between two batches, and how many receipts are a batch at most.
INTERVAL, BATCH = 0.5, 2_000
#: Receipts that wait for a database; a hundred bytes or two each.
MAX_WAITING = 100_000
#: A request held for so many seconds is told of, so often, so many of them.
HELD_AFTER, HELD_EVERY, MAX_HELD = 20.0, 60.0, 1_000
#: Seconds after a failure: doubled each time, up to this; and between two logs of it.
FIRST_PAUSE, MAX_PAUSE, LOG_EVERY = 1.0, 30.0, 60.0
#: Seconds that the end of a worker may take longer for its last receipts.
LAST_WORDS = 5.0

_NOTE = "SELECT inbox.note_receipts(%s, %s::json)"
_WATCH = "SELECT inbox.watch(ARRAY(SELECT json_array_elements_text(%s::json)))"

_WAYS_OUT = {
    UNDEFINED_FUNCTION: "the database has no inbox for them: run `outbox-migrate up` on it",
    UNDEFINED_SCHEMA: "the database has no inbox for them: run `outbox-migrate up` on it",
    "42501": "its login may not write them: run `outbox-migrate grant` on the database and grant "
    "it inbox_worker",
}


class Recorder:
    """The receipts of one worker."""

    def __init__(
        self,
        connect: Callable[[], Any],
        worker: str,
        tasks: Iterable[str],
        held: Callable[[float], Sequence[Ending]],
    ) -> None:
        """`held` returns what the worker has held for that many seconds."""
        self._connect = connect
        self._worker = worker
        self._tasks = sorted(tasks)
        self._held = held
        self._waiting: deque[Ending] = deque(maxlen=MAX_WAITING)
        self._given_up = 0
        self._wake = threading.Event()
        self._ending = False
        self._logged = float("-inf")
        self._watched = False
        self._thread = threading.Thread(target=self._run, name="celery-inbox receipts", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def note(self, ending: Ending) -> None:
        """Remember an ending; never waits."""
        if len(self._waiting) == MAX_WAITING:
            self._given_up += 1
        self._waiting.append(ending)
        if len(self._waiting) == BATCH:
            self._wake.set()

    def stop(self) -> None:
        """Write what is left, within a few seconds."""
        self._ending = True
        self._wake.set()
        self._thread.join(LAST_WORDS)
        if self._waiting:
            logger.warning(
                "receipts: %d not written, as the database did not take them in time; an audit "
                "will name messages that have run",
                len(self._waiting),
            )

    def _run(self) -> None:
        pause, held_at = INTERVAL, time.monotonic() + HELD_EVERY
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            if time.monotonic() >= held_at and not self._ending:
                held_at = time.monotonic() + HELD_EVERY
                self._waiting.extend(self._held(HELD_AFTER)[:MAX_HELD])
            pause = INTERVAL if self._written() else min(MAX_PAUSE, max(FIRST_PAUSE, pause * 2))
            if self._ending:
                return

    def _written(self) -> bool:
        """Write all that waits; False if the database did not take it."""
        try:
            if not self._watched:
                self._execute(Statement(_WATCH, (json.dumps(self._tasks),)))
                self._watched = True
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    self._write(batch)
                except Exception:
                    self._waiting.extendleft(reversed(batch[: MAX_WAITING - len(self._waiting)]))
                    raise
        except Exception as error:
            self._log(error)
            return False
        if self._given_up:
            logger.error(
                "receipts: gave up %d while the database was away; an audit will name messages "
                "that have run",
                self._given_up,
            )
            self._given_up = 0
        return True

    def _write(self, batch: Sequence[Ending]) -> None:
        """One transaction; what the database refuses for its content alone is given up."""
        now = time.monotonic()
        rows = json.dumps([_row(ending, now) for ending in batch])
        try:
            self._execute(Statement(_NOTE, (self._worker, rows)))
        except Exception as error:
            if sqlstate(error)[:2] not in ("22", "23"):
                raise
            if len(batch) == 1:
                self._given_up += 1
                self._log(error)
                return
            half = len(batch) // 2
            self._write(batch[:half])
            self._write(batch[half:])

    def _execute(self, statement: Statement) -> None:
        with opened(self._connect) as target:
            try:
                target.begin(statement)
                target.commit(None)
            except BaseException as error:
                target.roll_back(error)
                raise

    def _log(self, error: Exception) -> None:
        """Say what is wrong, now and again."""
        now = time.monotonic()
        if now - self._logged < LOG_EVERY:
            return
        self._logged = now
        why = _WAYS_OUT.get(sqlstate(error)) or f"({transient.described(error)})"
        logger.error("receipts cannot be written, and tasks go on without them: %s", why)


def _row(ending: Ending, now: float) -> dict[str, Any]:
    """As `inbox.note_receipts` reads it."""
    return {
        "id": ending.message_id,
        "task": ending.task,
        "outcome": ending.outcome,
        "error": ending.error,
        "run": ending.run,
        "received": None if ending.received is None else now - ending.received,
        "finished": None if ending.finished is None else now - ending.finished,
    }
