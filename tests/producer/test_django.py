"""In Django nothing is named: what is sent joins `atomic`, or is stored at once without one."""

import contextvars
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from celery import chord
from django.conf import settings  # type: ignore[import-untyped]  # Django ships no types
from django.db import connections, transaction  # type: ignore[import-untyped]  # the same
from django.db.utils import ProgrammingError  # type: ignore[import-untyped]  # the same

from celery_outbox import InvalidSetting, NoTransaction, OutboxNotReady, UnusableTarget
from celery_outbox.dispatch import dispatch_of
from outbox_migrations import upgrade
from tests.fixtures.django import forget
from tests.producer.conftest import Shop, Stored, make_shop
from tests.producer.test_worker import OWN_ID, deliver

pytestmark = pytest.mark.usefixtures("django_database")


def execute(command: str) -> Any:
    """Run a statement on Django's connection and return the first column of its first row."""
    with connections["default"].cursor() as cursor:
        cursor.execute(command)
        return cursor.fetchone()[0] if cursor.description else None


def test_joins_atomic(shop: Shop, stored: Stored) -> None:
    """Rows commit and roll back with `atomic`, savepoints included."""
    with transaction.atomic():
        shop.add.delay(1, 0)
        assert stored.rows() == []
        with suppress(KeyError), transaction.atomic():
            shop.add.delay(2, 0)
            raise KeyError
        with transaction.atomic():
            shop.add.apply_async((3, 0), countdown=60, expires=90, headers={"a": "100%s"})
    with suppress(KeyError), transaction.atomic():
        shop.add.delay(4, 0)
        raise KeyError

    assert stored.args() == [1, 3]
    assert stored.rows()[1].headers["a"] == "100%s"


def test_is_durable_outside_atomic(shop: Shop, stored: Stored) -> None:
    """Without a transaction the row is there when the call returns."""
    shop.add.delay(1, 0)
    assert stored.args() == [1]
    shop.app.outbox.publish(None, {}, exchange="events", routing_key="order.paid")
    assert stored.rows()[1].task == "order.paid"


def test_joins_a_transaction_without_atomic(shop: Shop, stored: Stored) -> None:
    """Where a project switched autocommit off, its own commit decides."""
    transaction.set_autocommit(False)
    try:
        shop.add.delay(1, 0)
        assert stored.rows() == []
        transaction.rollback()
        shop.add.delay(2, 0)
        transaction.commit()
    finally:
        transaction.set_autocommit(True)

    assert stored.args() == [2]


@pytest.fixture
def orders(django_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The alias of another database, whose transactions are its own."""
    monkeypatch.setitem(connections.settings, "orders", connections.settings[django_database])
    yield "orders"
    forget("orders")


def test_another_database_in_atomic(shop: Shop, stored: Stored, orders: str) -> None:
    """A send that would not join the transaction it stands in is refused, with the ways out."""
    with transaction.atomic(using=orders):
        with pytest.raises(UnusableTarget, match=r"'orders' is.*OUTBOX_DATABASE_ALIAS") as refusal:
            shop.add.delay(1, 0)
        assert "outbox.transaction('default')" in str(refusal.value)
        assert "outbox='orders'" in str(refusal.value)
        with pytest.raises(UnusableTarget, match="'orders' is"):
            shop.app.outbox.publish(None, {}, exchange="events")

        with shop.app.outbox.transaction("default"):
            shop.add.delay(2, 0)
        shop.add.apply_async((3, 0), outbox="orders")
        with transaction.atomic():
            shop.add.delay(4, 0)
        assert stored.args() == [2, 4]
    shop.add.delay(5, 0)

    assert stored.args() == [2, 3, 4, 5]


def test_a_retry_within_another_databases_atomic(shop: Shop, stored: Stored, orders: str) -> None:
    """It belongs to no transaction, and must be sent."""

    @shop.app.task(name="shop.flaky", shared=False, bind=True)
    def flaky(self: Any) -> None:
        with transaction.atomic(using=orders):
            raise self.retry(countdown=0)

    assert deliver(shop.app, "shop.flaky")[0] == "RETRY"
    assert [row.message_id for row in stored.rows()] == [OWN_ID]


def test_the_alias_as_target(shop: Shop, stored: Stored) -> None:
    """`using`, `transaction`, `outbox=` and `cancel` take the alias."""
    outbox = shop.app.outbox
    with transaction.atomic(), outbox.using("default") as joined:
        assert joined == "default"
        shop.add.delay(1, 0)
    with outbox.transaction("default"):
        first = shop.add.apply_async((2, 0), outbox="default")
        shop.add.apply_async((3, 0), outbox="default")
        assert outbox.cancel("default", first.id) is True
        with suppress(KeyError), outbox.transaction("default"):
            shop.add.delay(4, 0)
            raise KeyError

    assert stored.args() == [1, 3]


def test_a_chord_of_one_call(trap: str, stored: Stored) -> None:
    """An alias is text: unnoticed, it would be an option of the body, and fail in the worker."""
    shop = make_shop(trap, result_backend="cache+memory://")
    whole = chord([shop.add.s(1, 1)], shop.total.s(), app=shop.app)
    with transaction.atomic():
        whole.apply_async(outbox="default")
    (row,) = stored.rows()

    assert b'"chord": {' in row.body
    assert b'"outbox"' not in row.body


def test_the_block_of_another_connection_decides(
    shop: Shop, connection: Any, stored: Stored
) -> None:
    """A block that is open comes before Django's connection."""
    with transaction.atomic(), shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
    connection.rollback()

    assert stored.rows() == []


def test_another_alias(shop: Shop, monkeypatch: pytest.MonkeyPatch, stored: Stored) -> None:
    """Django's OUTBOX_DATABASE_ALIAS, or Celery's outbox_django_alias, names the database."""
    monkeypatch.setitem(connections.settings, "shop", connections.settings["default"])
    monkeypatch.setitem(connections.settings, "default", {"ENGINE": "django.db.backends.dummy"})
    monkeypatch.setattr(settings, "OUTBOX_DATABASE_ALIAS", "shop", raising=False)
    with transaction.atomic(using="shop"):
        shop.add.delay(1, 0)
        assert stored.rows() == []
    assert stored.args() == [1]
    forget("shop")
    shop.app.conf.outbox_django_alias = "nowhere"
    with pytest.raises(InvalidSetting, match="OUTBOX_DATABASE_ALIAS"):
        shop.add.delay(2, 0)


def test_a_project_on_another_database(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, database: str, stored: Stored
) -> None:
    """A default database that is no Postgres is left alone: there the URL decides."""
    monkeypatch.setitem(connections.settings, "default", {"ENGINE": "django.db.backends.dummy"})
    with pytest.raises(NoTransaction, match="a Postgres named `default`"):
        shop.add.delay(1, 0)
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    shop.add.delay(2, 0)
    assert stored.args() == [2]
    with pytest.raises(UnusableTarget, match="not a Postgres"), shop.app.outbox.using("default"):
        pass


def test_refuses(shop: Shop) -> None:
    """An unknown alias, autocommit where a transaction was named, `async with`."""
    with pytest.raises(UnusableTarget, match="no database"):
        shop.app.outbox.using("nowhere")
    with pytest.raises(UnusableTarget, match="atomic"), shop.app.outbox.using("default"):
        pass


def test_refuses_a_failed_transaction(shop: Shop) -> None:
    """Sending in a transaction that can only roll back raises at once."""
    with transaction.atomic():
        with suppress(ProgrammingError), transaction.atomic(savepoint=False):
            execute("SELECT nothing")
        with pytest.raises(UnusableTarget, match="rolled back"):
            shop.add.delay(1, 0)
        transaction.set_rollback(True)


def test_a_failure_cannot_commit(shop: Shop) -> None:
    """The error says why; catching it does not save the transaction."""
    execute("DROP SCHEMA outbox CASCADE")
    with transaction.atomic():
        execute("CREATE TABLE effect ()")
        with pytest.raises(OutboxNotReady, match="outbox-migrate up"):
            shop.add.delay(1, 0)

    assert execute("SELECT to_regclass('effect')") is None


def test_a_lost_connection_is_replaced(shop: Shop, stored: Stored) -> None:
    """A process without requests, such as beat, recovers by itself after one failure."""
    pid = execute("SELECT pg_backend_pid()")
    connections["default"].copy().cursor().execute(f"SELECT pg_terminate_backend({pid}, 5000)")
    with pytest.raises(Exception, match=r"terminat|closed"):
        shop.add.delay(1, 0)
    shop.add.delay(2, 0)

    assert stored.args() == [2]


def test_a_lost_idle_connection_is_replaced(
    shop: Shop, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was idle for a while, beat's say, not even the first send fails."""
    monkeypatch.setattr("celery_outbox.stores.django.IDLE", 0.0)
    shop.add.delay(1, 0)
    pid = execute("SELECT pg_backend_pid()")
    connections["default"].copy().cursor().execute(f"SELECT pg_terminate_backend({pid}, 5000)")
    shop.add.delay(2, 0)

    assert stored.args() == [1, 2]


def test_the_schema_of_djangos_settings(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    """Django's OUTBOX_SCHEMA, which migrations and the admin heed, holds for sends as well."""
    upgrade(database, schema="mine", component="outbox")
    monkeypatch.setattr(settings, "OUTBOX_SCHEMA", "mine", raising=False)
    shop.add.delay(1, 0)

    assert execute("SELECT count(*) FROM mine.message") == 1


def test_a_retry_survives_the_rollback_it_causes(shop: Shop, stored: Stored) -> None:
    """`raise self.retry()` inside `atomic` is stored, although the rest rolls back."""

    @shop.app.task(bind=True, name="shop.unsteady", shared=False)
    def unsteady(self: Any) -> None:
        with transaction.atomic():
            shop.add.delay(7, 0)
            raise self.retry(countdown=1)

    state, _ = deliver(shop.app, "shop.unsteady")

    assert state == "RETRY"
    assert [(row.task, row.message_id) for row in stored.rows()] == [("shop.unsteady", OWN_ID)]


@pytest.mark.parametrize(
    ("named", "outcome"), [("by Celery", ("REJECTED", 0)), ("in the environment", ("RETRY", 1))]
)
def test_a_retry_beside_a_database_url(
    shop: Shop,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    outcome: tuple[str, int],
) -> None:
    """It stays in Django's database, unless Celery's own setting names another."""
    url = "postgresql://127.0.0.1:1/nowhere"
    monkeypatch.setattr("celery_outbox.worker.PATIENCE", 0.0)
    if named == "by Celery":
        shop.app.conf.outbox_database_url = url
    monkeypatch.setenv("OUTBOX_DATABASE_URL", url)

    @shop.app.task(bind=True, name="shop.unsteady", shared=False)
    def unsteady(self: Any) -> None:
        raise self.retry(countdown=1)

    state, _ = deliver(shop.app, "shop.unsteady")

    assert (state, len(stored.rows())) == (
        ("REJECTED", 0) if named == "by Celery" else ("RETRY", 1)
    )


def test_a_retry_without_autocommit(
    shop: Shop, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AUTOCOMMIT switched off, a connection of its own has to commit as well."""
    monkeypatch.setitem(connections["default"].settings_dict, "AUTOCOMMIT", False)

    @shop.app.task(bind=True, name="shop.unsteady", shared=False)
    def unsteady(self: Any) -> None:
        raise self.retry(countdown=1)

    state, _ = deliver(shop.app, "shop.unsteady")
    transaction.rollback()

    assert (state, len(stored.rows())) == ("RETRY", 1)


def test_workers_need_no_warning(shop: Shop) -> None:
    """Django's connection is a database for what a worker sends by itself."""
    assert dispatch_of(shop.app).has_database()


def test_a_block_of_another_thread(shop: Shop, stored: Stored) -> None:
    """Django gives each thread its own connection, so a block does not reach a thread."""

    def send() -> None:
        with transaction.atomic():
            shop.add.delay(2, 0)

    with ThreadPoolExecutor(1) as pool, transaction.atomic(), shop.app.outbox.using("default"):
        shop.add.delay(1, 0)
        inherited = contextvars.copy_context()
        with pytest.raises(UnusableTarget, match="another thread"):
            pool.submit(inherited.run, send).result()
        pool.submit(connections.close_all).result()

    assert stored.args() == [1]


def test_a_retry_while_djangos_pool_has_no_more(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, stored: Stored
) -> None:
    """It takes no connection from the pool, whose only one its own transaction holds."""
    pool = {"min_size": 1, "max_size": 1, "timeout": 5}
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {"pool": pool})
    monkeypatch.setattr("celery_outbox.worker.PATIENCE", 0.0)

    @shop.app.task(bind=True, name="shop.unsteady", shared=False)
    def unsteady(self: Any) -> None:
        with transaction.atomic():
            shop.add.delay(1, 0)
            raise self.retry(countdown=1)

    state, _ = deliver(shop.app, "shop.unsteady")
    connections["default"].close()
    connections["default"].close_pool()

    assert (state, [row.task for row in stored.rows()]) == ("RETRY", ["shop.unsteady"])
