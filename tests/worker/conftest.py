"""A migrated database with a table for effects, and deliveries as a Celery worker makes them."""

from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, Task
from celery.app.trace import build_tracer

from tests.worker.ledger import Deliver, Ledger
from tests.worker.libraries import LIBRARIES, Library


@pytest.fixture
def ledger(database: str) -> Ledger:
    """The migrated database of this test, with one table for what tasks do."""
    ledger = Ledger(database)
    ledger.run("CREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY, note text)")
    return ledger


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest, ledger: Ledger) -> Iterator[Library]:
    """One way to reach the ledger's database."""
    yield from request.param(ledger.dsn)


@pytest.fixture
def app() -> Iterator[Celery]:
    """A Celery app whose broker and result backend are in this process."""
    app: Any = Celery("ledger", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = uuid4().hex  # the memory broker is one for the whole process
    app.task = partial(app.task, shared=False)  # tests reuse task names; apps would share them
    yield app
    app.close()


@pytest.fixture
def deliver() -> Deliver:
    """Run a task as a worker does for one message; return its result or raise how it ended."""

    def deliver(task: "Task[..., Any]", *args: Any, id: str = "message-1", **headers: Any) -> Any:
        request = {"id": id, "is_eager": False, "called_directly": False, **headers}
        trace = build_tracer(task.name, task, app=task.app)
        ending = trace(id, list(args), {}, request)
        if ending.info is None:
            return ending.retval
        raise ending.info.retval

    return deliver
