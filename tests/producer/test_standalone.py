"""Without a transaction, and with a database URL, a row is durable when the call returns."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from psycopg import sql
from psycopg.conninfo import make_conninfo

from celery_outbox import DatabaseUnavailable, InvalidSetting, OutboxCelery, OutboxNotReady
from celery_outbox.dispatch import dispatch_of
from outbox_migrations import grant, upgrade
from servers import Postgres
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.producer.conftest import Shop, Stored, make_shop


def backends(database: str) -> list[int]:
    """Return the server processes that serve standalone rows of a database."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'celery-outbox'"
    with psycopg.connect(database) as connection:
        return [pid for (pid,) in connection.execute(query)]


def test_durable_on_return(trap: str, database: str, stored: Stored) -> None:
    """Each send is committed at once, over one connection."""
    shop = make_shop(trap, outbox_database_url=database)
    for number in range(3):
        result = shop.add.delay(number, 0)
        assert stored.rows()[-1].message_id == result.id

    assert stored.args() == [0, 1, 2]
    assert len(backends(database)) == 1


def test_a_block_comes_first(trap: str, database: str, stored: Stored) -> None:
    """Inside `using` the row belongs to that transaction all the same."""
    shop = make_shop(trap, outbox_database_url=database)
    with psycopg.connect(database) as connection:
        with shop.app.outbox.using(connection):
            shop.add.delay(1, 0)
        connection.rollback()
    shop.add.delay(2, 0)

    assert stored.args() == [2]


def test_is_pointed_out_once(trap: str, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """In a web process it may be a block that was forgotten; in a worker or beat it is meant."""
    shops = [make_shop(trap, outbox_database_url=database) for _ in range(2)]
    dispatch_of(shops[0].app).begin_work()
    for shop in shops:
        shop.add.delay(1, 0)
        shop.add.delay(2, 0)

    (warning,) = [
        record.message for record in caplog.records if "OUTBOX_DATABASE_URL" in record.message
    ]
    assert warning.startswith("shop.add was sent without a transaction")


def test_from_the_environment(
    trap: str, database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The URL comes from OUTBOX_DATABASE_URL, or from the file OUTBOX_DATABASE_URL_FILE names."""
    shop = make_shop(trap)
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    shop.add.delay(1, 0)
    monkeypatch.delenv("OUTBOX_DATABASE_URL")
    secret = tmp_path / "url"
    secret.write_text(f"{database}\n")
    monkeypatch.setenv("OUTBOX_DATABASE_URL_FILE", str(secret))
    shop.add.delay(2, 0)
    secret.write_text(f"{database}?application_name=rotated")
    shop.add.delay(3, 0)

    assert stored.args() == [1, 2, 3]


def test_in_a_configuration_namespace(trap: str, database: str, stored: Stored) -> None:
    """With a namespace, as in Django settings, the keys carry its prefix."""
    app = OutboxCelery("shop", broker=trap, set_as_current=False, namespace="CELERY")
    app.config_from_object({"CELERY_OUTBOX_DATABASE_URL": database}, namespace="CELERY")
    app.send_task("any.task", (1,))

    assert stored.args() == [1]


@pytest.mark.parametrize("url", ["host=h nonsense secret", "postgresql://u:secret@[h/db"])
def test_a_malformed_url(trap: str, url: str) -> None:
    """The error names the setting and does not repeat the secret."""
    shop = make_shop(trap, outbox_database_url=url)
    with pytest.raises(InvalidSetting, match="OUTBOX_DATABASE_URL") as caught:
        shop.add.delay(1, 0)

    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


WRONG_URLS = {
    "postgresql+psycopg://u:secret@h/db": r"begins with postgresql\+psycopg://: write postgresql://",
    "postgresql+asyncpg://u:secret@h/db": "without a driver",
    "postgresql://u:secret@h/db?ssl=require": "option 'ssl', .* sslmode=require",
    "postgresql://u:secret@h/db?sslmode=require&nonsense=1": "option 'nonsense'",
}


@pytest.mark.parametrize("url", WRONG_URLS)
def test_a_url_of_another_library(trap: str, url: str) -> None:
    """The error says what libpq does not read."""
    shop = make_shop(trap, outbox_database_url=url)
    with pytest.raises(InvalidSetting, match=WRONG_URLS[url]) as caught:
        shop.add.delay(1, 0)

    assert "secret" not in str(caught.value)


def test_a_time_limit_during_a_send(
    trap: str, database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next send does not find the connection busy with the one that was cut off."""
    shop = make_shop(trap, outbox_database_url=database)
    shop.add.delay(1, 0)
    wait = psycopg.Connection.wait

    def interrupted(self: Any, operation: Any, *args: Any, **kwargs: Any) -> Any:
        next(operation)  # the statement is on its way
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(psycopg.Connection, "wait", interrupted)
    with pytest.raises(SoftTimeLimitExceeded):
        shop.add.delay(2, 0)
    monkeypatch.setattr(psycopg.Connection, "wait", wait)
    shop.add.delay(3, 0)

    assert 3 in stored.args()


def test_a_missing_file(trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there is an error, not an absent setting."""
    monkeypatch.setenv("OUTBOX_DATABASE_URL_FILE", "/nowhere/url")
    with pytest.raises(InvalidSetting, match="OUTBOX_DATABASE_URL_FILE cannot be read"):
        make_shop(trap).add.delay(1, 0)


def test_two_sources(trap: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL beside a file is refused, as the relay refuses it: one of them must be a mistake."""
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    monkeypatch.setenv("OUTBOX_DATABASE_URL_FILE", "/run/secrets/url")
    with pytest.raises(InvalidSetting, match="are both set"):
        make_shop(trap).add.delay(1, 0)


@pytest.mark.parametrize("schema", ['x"; DROP TABLE y', "é", "x" * 64, "two words"])
def test_a_malformed_schema(trap: str, database: str, schema: str) -> None:
    """Only a plain identifier is taken for a schema."""
    shop = make_shop(trap, outbox_database_url=database, outbox_schema=schema)
    with pytest.raises(InvalidSetting, match="OUTBOX_SCHEMA"):
        shop.add.delay(1, 0)


def test_another_schema(trap: str, database: str) -> None:
    """OUTBOX_SCHEMA says where the table is; a schema without one is named in the error."""
    upgrade(database, schema="mine", component="outbox")
    make_shop(trap, outbox_database_url=database, outbox_schema="mine").add.delay(1, 0)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM mine.message").fetchone() == (1,)
    with pytest.raises(OutboxNotReady, match=r"schema empty .* `outbox-migrate up`"):
        make_shop(trap, outbox_database_url=database, outbox_schema="empty").add.delay(1, 0)


def test_a_connection_per_thread(trap: str, database: str, stored: Stored) -> None:
    """Threads neither share a connection nor wait for one another."""
    shop = make_shop(trap, outbox_database_url=database)
    together = threading.Barrier(4)

    def send(number: int) -> None:
        together.wait()
        shop.add.delay(number, 0)
        together.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
        assert len(backends(database)) == 4

    assert sorted(stored.args()) == [0, 1, 2, 3]


def send_in_child(shop: Shop) -> None:
    """What the forked child does."""
    shop.add.delay(2, 0)


def test_not_shared_across_fork(trap: str, database: str, stored: Stored) -> None:
    """A forked child connects for itself and leaves its parent's connection intact."""
    shop = make_shop(trap, outbox_database_url=database)
    shop.add.delay(1, 0)
    (own,) = backends(database)
    child = multiprocessing.get_context("fork").Process(target=send_in_child, args=(shop,))
    child.start()
    child.join(30)
    shop.add.delay(3, 0)

    assert child.exitcode == 0
    assert stored.args() == [1, 2, 3]
    assert own in backends(database)


def test_a_connection_the_server_ended(trap: str, database: str, stored: Stored) -> None:
    """An idle connection that was ended is replaced without an error."""
    shop = make_shop(trap, outbox_database_url=database)
    shop.add.delay(1, 0)
    with psycopg.connect(database) as connection:
        for pid in backends(database):
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    shop.add.delay(2, 0)

    assert stored.args() == [1, 2]


def test_database_away(trap: str, own_postgres: OwnPostgres) -> None:
    """While the database is away the error is transient, and over when it is back."""
    server: Postgres = own_postgres()
    database = migrated_database(server)
    shop = make_shop(trap, outbox_database_url=database)
    shop.add.delay(1, 0)
    server.kill()
    with pytest.raises(DatabaseUnavailable, match=r"shop\.add"):
        shop.add.delay(2, 0)
    server.start()
    shop.add.delay(3, 0)

    assert Stored(database).args() == [1, 3]


def test_a_lock_that_is_not_released(
    trap: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No send waits for ever: after the deadline the error is transient."""
    monkeypatch.setattr("celery_outbox.stores.standalone.STATEMENT_TIMEOUT", 0.3)
    shop = make_shop(trap, outbox_database_url=database)
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE outbox.message")
        with pytest.raises(DatabaseUnavailable, match="no answer within"):
            shop.add.delay(1, 0)


def test_privileges(trap: str, database: str, stored: Stored) -> None:
    """A role that may not insert is told what to grant; with just that, sending works."""
    role = sql.Identifier(name := f"shop_{uuid4().hex}")
    with psycopg.connect(database) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'p'").format(role))
    url = make_conninfo(database, user=name, password="p")
    shop = make_shop(trap, outbox_database_url=url)
    with pytest.raises(OutboxNotReady, match="GRANT outbox_producer"):
        shop.add.delay(1, 0)
    grant(database)
    with psycopg.connect(database) as connection:
        connection.execute(sql.SQL("GRANT outbox_producer TO {}").format(role))
    first, _ = shop.add.delay(2, 0), shop.add.delay(3, 0)
    with psycopg.connect(url) as connection:
        assert shop.app.outbox.cancel(connection, first.id)

    assert stored.args() == [3]


def test_events(trap: str, database: str, stored: Stored) -> None:
    """An event without a transaction is stored the same way."""
    shop = make_shop(trap, outbox_database_url=database)
    message_id = shop.app.outbox.publish(
        None, {"n": 1}, exchange="events", routing_key="order.paid"
    )
    (row,) = stored.rows()
    headers: dict[str, Any] = {}

    assert (row.message_id, row.task, row.headers) == (message_id, "order.paid", headers)
