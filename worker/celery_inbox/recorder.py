"""Writes receipts to the database beside the work, in batches, from a thread of its own.

Whoever notes an ending only appends to a queue: no task waits for a database, and none fails over
it. While it is away, receipts wait in memory, and of too many the oldest are given up and counted.

Batches are few and large: each is a transaction, for which the thread takes the interpreter from
the tasks several times, and costs as much as some hundred receipts.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from celery.utils.log import get_logger

from celery_inbox import transient
from celery_inbox.endings import MAX_NAME, Ending, clean
from celery_inbox.target import Statement
from celery_inbox.targets import opened
from celery_inbox.transient import UNDEFINED_FUNCTION, UNDEFINED_SCHEMA, sqlstate

logger = get_logger(__name__)

#: Seconds between two looks at what waits, and how many receipts are a batch at most.
INTERVAL, BATCH = 0.5, 5_000
#: Receipts that wait for a database; a hundred bytes or two each.
MAX_WAITING = 100_000
#: A request held for so many seconds is told of, so often, so many of them.
HELD_AFTER, HELD_EVERY, MAX_HELD = 20.0, 60.0, 1_000
#: Seconds after a failure: doubled each time, up to this; and between two logs of it.
FIRST_PAUSE, MAX_PAUSE, LOG_EVERY = 1.0, 30.0, 60.0
#: Seconds that the end of a worker may take longer for its last receipts.
LAST_WORDS = 5.0

_NOTE = (
    "SELECT inbox.note_receipts(%s::text, %s::text[], %s::text[], %s::text[], %s::text[],"
    " %s::bigint[], %s::float8[], %s::float8[])"
)
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
        self, connect: Callable[[], Any], held: Callable[[float], Sequence[Ending]]
    ) -> None:
        """`held` returns what the worker has held for that many seconds."""
        self._connect = connect
        self._held = held
        self._worker = ""
        self._tasks: list[str] = []
        self._waiting: deque[Ending] = deque(maxlen=MAX_WAITING)
        self._given_up = 0
        self._end = threading.Event()
        self._logged = float("-inf")
        self._watched = False
        self._thread: threading.Thread | None = None

    def start(self, worker: str, tasks: Iterable[str]) -> None:
        """Begin to write, of this worker with these tasks; nothing, if that has begun."""
        if self._thread is None:
            self._worker, self._tasks, self._watched = worker, sorted(tasks), False
            self._end = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._end,), name="celery-inbox receipts", daemon=True
            )
            self._thread.start()

    def note(self, ending: Ending) -> None:
        """Remember an ending; never waits, and wakes nobody: it is called for every task."""
        if len(self._waiting) == MAX_WAITING:
            self._given_up += 1
        self._waiting.append(ending)

    def stop(self) -> None:
        """Write what is left, within a few seconds."""
        if self._thread is None:
            return
        self._end.set()
        self._thread.join(LAST_WORDS)
        self._thread = None
        if self._waiting:
            logger.warning(
                "receipts: %d not written, as the database did not take them in time; an audit "
                "will name messages that have run",
                len(self._waiting),
            )

    def _run(self, end: threading.Event) -> None:
        pause, held_at = INTERVAL, time.monotonic() + HELD_EVERY
        while True:
            ending = end.wait(pause)  # read first: nothing is noted after it was set
            began = time.monotonic()
            if began >= held_at and not ending:
                held_at = began + HELD_EVERY
                self._waiting.extend(self._held(HELD_AFTER)[:MAX_HELD])
            if self._written(everything=ending):
                pause = max(0.0, INTERVAL - (time.monotonic() - began))
            else:
                pause = min(MAX_PAUSE, max(FIRST_PAUSE, pause * 2))
            if ending:
                return

    def _written(self, *, everything: bool) -> bool:
        """Write what waits; False if the database did not take it.

        What came meanwhile is left to the next time, if it is no batch and not `everything`: else
        a worker that is busy would have one small transaction after another.
        """
        try:
            if not self._watched:
                self._execute(Statement(_WATCH, (json.dumps(self._tasks),)))
                self._watched = True
            first = True
            while (first or everything or len(self._waiting) >= BATCH) and (batch := self._taken()):
                first = False
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

    def _taken(self) -> list[Ending]:
        """The oldest, a batch at most. A thread that was given up may come back and take some."""
        batch: list[Ending] = []
        with suppress(IndexError):
            while len(batch) < BATCH:
                batch.append(self._waiting.popleft())
        return batch

    def _write(self, batch: Sequence[Ending]) -> None:
        """One transaction; what the database refuses for its content alone is given up."""
        try:
            self._execute(Statement(_NOTE, (self._worker, *_columns(batch))))
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
            target.alone(statement)

    def _log(self, error: Exception) -> None:
        """Say what is wrong, now and again."""
        now = time.monotonic()
        if now - self._logged < LOG_EVERY:
            return
        self._logged = now
        why = _WAYS_OUT.get(sqlstate(error)) or f"({transient.described(error)})"
        logger.error("receipts cannot be written, and tasks go on without them: %s", why)


def _columns(batch: Sequence[Ending]) -> tuple[str, ...]:
    """As `inbox.note_receipts` takes them: arrays, in Postgres' own notation.

    Made here for the whole batch: a driver adapts value by value, at three times the price.
    """
    ids, tasks, outcomes, errors, runs, received, finished = zip(*batch, strict=True)
    now = time.monotonic()
    return (
        _ids(ids),
        *(_texts(column) for column in (tasks, outcomes, errors)),
        "{" + ",".join(map(str, runs)) + "}",
        _ages(received, now),
        _ages(finished, now),
    )


def _ids(column: Sequence[str]) -> str:
    """All different, so looked at together where they are as ids are."""
    text = "\0".join(column)
    if not (text.isascii() and text.count("\0") == len(column) - 1):
        return _texts(column)
    if max(map(len, column)) > MAX_NAME:
        return _texts(column)
    return '{"' + _escaped(text).replace("\0", '","') + '"}'


def _texts(column: Sequence[str | None]) -> str:
    """A few, of which most come again and again."""
    quoted = {text: _quoted(text) for text in set(column)}
    return "{" + ",".join(map(quoted.__getitem__, column)) + "}"


def _quoted(text: str | None) -> str:
    return "NULL" if text is None else f'"{_escaped(clean(text))}"'


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"")


def _ages(column: Sequence[float | None], now: float) -> str:
    """In seconds, to the microsecond, as Postgres has times."""
    if None in column:
        return "{" + ",".join("NULL" if at is None else f"{now - at:.6f}" for at in column) + "}"
    return "{" + ("%.6f," * len(column) % tuple([now - at for at in column]))[:-1] + "}"  # type: ignore[operator]  # no None is among them
