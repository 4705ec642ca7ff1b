"""celery-singleton: its lock outlives a rollback; `dedup_key` does the same in the transaction."""

from contextlib import suppress
from typing import Any

import psycopg
import pytest
from celery_singleton import Singleton

from celery_outbox import OutboxCelery
from tests.ecosystem.conftest import Stored


@pytest.fixture
def app(valkey_url: str, down: str) -> Any:
    """An app with its broker down, and the Redis that locks are taken in."""
    app = OutboxCelery("shop", broker=down, backend=valkey_url, set_as_current=False)
    app.conf.singleton_backend_url = valkey_url
    yield app
    app.close()


def test_a_rollback_leaves_the_lock(
    app: OutboxCelery,
    connection: psycopg.Connection[Any],
    stored: Stored,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The next send is taken for a duplicate of one that never was. The first one is warned of."""

    @app.task(base=Singleton, name="shop.rebuild", shared=False)
    def rebuild(shelf: int) -> None: ...

    task: Any = rebuild
    with suppress(ZeroDivisionError), app.outbox.transaction(connection):
        first = task.delay(7)
        raise ZeroDivisionError
    with app.outbox.transaction(connection):
        second = task.delay(7)

    assert second.id == first.id
    assert stored() == []
    (warning,) = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert "shop.rebuild is a task of celery_singleton" in warning
    assert "dedup_key" in warning


def test_dedup_key_goes_with_the_rollback(
    app: OutboxCelery, connection: psycopg.Connection[Any], stored: Stored
) -> None:
    """And of two wishes that commit, one is stored."""

    @app.task(name="shop.rebuild", shared=False)
    def rebuild(shelf: int) -> None: ...

    once: dict[str, Any] = {"dedup_key": "rebuild-7"}  # celery-types does not know it
    with suppress(ZeroDivisionError), app.outbox.transaction(connection):
        rebuild.apply_async((7,), **once)
        raise ZeroDivisionError
    wishes = []
    for _ in range(2):
        with app.outbox.transaction(connection):
            wishes.append(rebuild.apply_async((7,), **once))

    assert [task for task, _ in stored()] == ["shop.rebuild"]
    assert wishes[0].id == wishes[1].id
