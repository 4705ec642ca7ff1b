"""What the tests share: a connection whose transaction is rolled back, and the outbox in it."""

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

pytest_plugins = ["celery_outbox.testing"]


@pytest.fixture
def connection() -> Iterator[psycopg.Connection[Any]]:
    """A connection whose transaction is rolled back after the test."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders"
            " (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, item text)"
        )
        yield connection
        connection.rollback()


@pytest.fixture
def outbox_target(connection: Any) -> Any:
    """Where the fixture `outbox` looks; in Django not needed."""
    return connection
