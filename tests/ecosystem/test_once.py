"""celery-once: its lock outlives a rollback; `dedup_key` does the same in the transaction."""

from contextlib import suppress
from typing import Any

import psycopg
import pytest
from celery_once import AlreadyQueued, QueueOnce

from celery_outbox import OutboxCelery
from tests.ecosystem.conftest import Stored
from tests.ecosystem.locks import is_replaced_by_dedup_key, is_warned_of_once


@pytest.fixture
def app(valkey_url: str, down: str) -> Any:
    """An app with its broker down, and the Redis that locks are taken in."""
    app = OutboxCelery("shop", broker=down, set_as_current=False)
    settings = {"url": valkey_url, "default_timeout": 3600}
    app.conf.ONCE = {"backend": "celery_once.backends.Redis", "settings": settings}
    yield app
    app.close()


def test_a_rollback_leaves_the_lock(
    app: OutboxCelery,
    connection: psycopg.Connection[Any],
    stored: Stored,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The next send is refused for one that never was. The first one is warned of."""

    @app.task(base=QueueOnce, name="shop.rebuild", shared=False)
    def rebuild(shelf: int) -> None: ...

    task: Any = rebuild
    with suppress(ZeroDivisionError), app.outbox.transaction(connection):
        task.delay(7)
        raise ZeroDivisionError
    with pytest.raises(AlreadyQueued), app.outbox.transaction(connection):
        task.delay(7)

    assert stored() == []
    is_warned_of_once(caplog, "celery_once")


def test_dedup_key_goes_with_the_rollback(
    app: OutboxCelery, connection: psycopg.Connection[Any], stored: Stored
) -> None:
    """And of two wishes that commit, one is stored."""
    is_replaced_by_dedup_key(app, connection, stored)
