"""A migrated database with a table for effects, and deliveries as a Celery worker makes them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from celery import Celery, Task
from celery.app.trace import build_tracer
from psycopg import IsolationLevel


@dataclass(frozen=True, slots=True)
class Ledger:
    """The database the tasks of a test write to, seen from outside their transactions."""

    dsn: str
    isolation: IsolationLevel | None = None

    def connect(self) -> psycopg.Connection[Any]:
        """What the tasks under test pass to @idempotent."""
        connection = psycopg.connect(self.dsn)
        connection.isolation_level = self.isolation
        return connection

    def run(self, statement: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own; its rows, if it returns any."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def effects(self) -> list[str]:
        """What the task bodies have committed, in order."""
        return [note for (note,) in self.run("SELECT note FROM effect ORDER BY id")]

    def inbox(self) -> list[tuple[Any, ...]]:
        """Every row of the inbox: id, task and result."""
        return self.run("SELECT message_id, task, result::text FROM inbox.processed ORDER BY 1")


@pytest.fixture
def ledger(database: str) -> Ledger:
    """The migrated database of this test, with one table for what tasks do."""
    ledger = Ledger(database)
    ledger.run("CREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY, note text)")
    return ledger


@pytest.fixture
def app() -> Iterator[Celery]:
    """A Celery app whose broker and result backend are in this process."""
    app = Celery("ledger", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = uuid4().hex  # the memory broker is one for the whole process
    app.task = partial(app.task, shared=False)  # tests reuse task names; apps would share them
    yield app
    app.close()


Deliver = Callable[..., Any]


@pytest.fixture
def deliver() -> Deliver:
    """Run a task as a worker does for one message; return its result or raise how it ended."""

    def deliver(task: Task[..., Any], *args: Any, id: str = "message-1", **headers: Any) -> Any:
        request = {"id": id, "is_eager": False, "called_directly": False, **headers}
        trace = build_tracer(task.name, task, app=task.app)
        ending = trace(id, args, {}, request)
        if ending.info is None:
            return ending.retval
        raise ending.info.retval

    return deliver
