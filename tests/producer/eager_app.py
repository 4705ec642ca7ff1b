"""An app that runs its tasks where they are sent, for the tests that take its fixtures."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from celery_outbox import OutboxCelery
from tests.producer.conftest import Connection, make_shop


@pytest.fixture
def app() -> OutboxCelery:
    """An app that runs its tasks where they are sent."""
    return make_shop(None, task_always_eager=True).app


@pytest.fixture
def ran(app: OutboxCelery) -> list[Any]:
    """What `note` was called with, in order."""
    ran: list[Any] = []

    @app.task(name="note", shared=False)
    def note(what: Any) -> Any:
        ran.append(what)
        if what == "bad":
            raise KeyError(what)
        return what

    return ran


@pytest.fixture
def note(app: OutboxCelery, ran: list[Any]) -> Any:
    """A task that notes its argument and returns it."""
    return app.tasks["note"]


@pytest.fixture
def open_connection(database: str) -> Iterator[Connection]:
    """A connection with no transaction begun."""
    with psycopg.connect(database) as connection:
        yield connection
