"""What users test with: a list of what their transaction would send, and eager tasks."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.db import transaction  # type: ignore[import-untyped]  # Django ships no types
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from celery_outbox import NoTransaction
from tests.producer.conftest import Connection, Shop, Stored, make_shop

pytest_plugins = ["celery_outbox.testing.plugin"]  # its fixtures, not its report

Messages = Callable[..., Any]


def test_lists_what_would_be_sent(
    shop: Shop, connection: Connection, outbox_messages: Messages
) -> None:
    """What was committed before, and what a savepoint took back, is not listed."""
    with shop.app.outbox.transaction(connection):
        shop.add.delay(0, 0)
    with shop.app.outbox.using(connection):
        shop.add.apply_async((1,), {"y": 2}, queue="slow", countdown=60)
        with suppress(KeyError), connection.transaction():
            shop.add.delay(3, 0)
            raise KeyError
        with connection.transaction():
            shop.add.delay(4, 0)
        shop.app.outbox.publish(connection, {"id": 5}, exchange="events", routing_key="paid")
        first, second, event = outbox_messages(connection)

    assert (first.task, first.args, first.kwargs) == ("shop.add", [1], {"y": 2})
    assert (first.routing_key, first.eta is None) == ("slow", False)
    assert (second.args, second.eta) == ([4, 0], None)
    assert (event.exchange, event.routing_key, event.args) == ("events", "paid", {"id": 5})


def test_lists_what_waits_where_tests_commit(
    shop: Shop, connection: Connection, django_database: str, outbox_messages: Messages
) -> None:
    """With no transaction in progress: the committed rows that no relay has sent."""
    shop.add.delay(1, 0)
    with transaction.atomic():
        shop.add.apply_async((2, 0), countdown=60)
    assert [message.args for message in outbox_messages()] == [[1, 0], [2, 0]]
    assert [message.args for message in outbox_messages(connection)] == [[1, 0], [2, 0]]
    connection.rollback()
    connection.execute("SELECT outbox.discard(message_id) FROM outbox.pending")
    connection.commit()

    assert [message.args for message in outbox_messages()] == [[2, 0]]


def test_lists_a_compressed_task(
    shop: Shop, connection: Connection, outbox_messages: Messages
) -> None:
    """As its worker would read it."""
    with shop.app.outbox.using(connection):
        shop.add.apply_async((1, 2), compression="gzip")
        (message,) = outbox_messages(connection)

    assert message.args == [1, 2]


def test_lists_for_every_target(
    shop: Shop, database: str, django_database: str, outbox_messages: Messages
) -> None:
    """A Session, an AsyncConnection, Django's own connection."""
    engine = create_engine(database.replace("postgresql", "postgresql+psycopg", 1))
    with Session(engine) as session, shop.app.outbox.using(session):
        shop.add.delay(1, 0)
        assert [message.args for message in outbox_messages(session)] == [[1, 0]]
    with transaction.atomic():
        shop.add.delay(2, 0)
        assert [message.args for message in outbox_messages()] == [[2, 0]]

    async def main() -> None:
        async with (
            await psycopg.AsyncConnection.connect(database) as connection,
            shop.app.outbox.using(connection),
        ):
            shop.add.delay(3, 0)
            assert [message.args for message in await outbox_messages(connection)] == [[3, 0]]

    asyncio.run(main())


def test_needs_a_transaction(outbox_messages: Messages) -> None:
    """Where there is none to look into, the error says so."""
    with pytest.raises(NoTransaction):
        outbox_messages()


def test_eager_tasks_write_no_rows(trap: str, connection: Connection, stored: Stored) -> None:
    """With task_always_eager a task runs in the process, with and without a transaction."""
    shop = make_shop(trap, task_always_eager=True)
    assert shop.add.delay(1, 2).get() == 3
    with connection, shop.app.outbox.using(connection):
        assert shop.add.delay(3, 4).get() == 7

    assert stored.rows() == []
