"""What a worker itself sends is not lost while the outbox cannot be written."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.exceptions import Reject
from django.db import connections  # type: ignore[import-untyped]  # Django ships no types
from kombu.exceptions import OperationalError

from celery_outbox import DatabaseUnavailable, OutboxCelery, OutboxNotReady
from celery_outbox.dispatch import dispatch_of
from servers import Postgres
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.programs import WorkerFactory
from tests.fixtures.waiting import wait_until
from tests.producer import patient
from tests.producer.conftest import Stored, make_shop
from tests.producer.test_worker import arrived, deliver

NOWHERE = "postgresql://127.0.0.1:1/nowhere"


def flaky(app: OutboxCelery, **options: Any) -> None:
    """Register a task that retries at once."""

    @app.task(name="shop.flaky", shared=False, bind=True, **options)
    def flaky(self: Any) -> None:
        raise self.retry(countdown=0)


def successor(app: OutboxCelery, **options: Any) -> None:
    """Register a task that replaces itself."""

    @app.task(name="shop.flaky", shared=False, bind=True, **options)
    def replaced(self: Any) -> Any:
        return self.replace(app.signature("shop.add", (1, 0)))


def predecessor(app: OutboxCelery, **options: Any) -> None:
    """Register a task that something follows."""

    @app.task(name="shop.flaky", shared=False, **options)
    def done() -> int:
        return 1


FOLLOWED: dict[str, Any] = {"callbacks": [{"task": "shop.add", "args": (0,), "options": {}}]}
ENDINGS = pytest.mark.parametrize(
    ("register", "request_"),
    [(flaky, {}), (successor, {}), (predecessor, FOLLOWED)],
    ids=["retry", "replace", "link"],
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon."""
    monkeypatch.setattr("celery_outbox.worker.PATIENCE", 0.2)


def on_first_pause(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[float]:
    """Do something when a worker pauses for the first time, instead of the pause."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
            if len(pauses) == 1:
                act()

    monkeypatch.setattr("celery_outbox.worker.sleep", pause)
    return pauses


@ENDINGS
def test_a_database_that_comes_back(
    trap: str,
    own_postgres: OwnPostgres,
    monkeypatch: pytest.MonkeyPatch,
    register: Any,
    request_: Any,
) -> None:
    """Retry, replacement and continuation are stored once the database is back."""
    server: Postgres = own_postgres()
    database = migrated_database(server)
    shop = make_shop(trap, outbox_database_url=database)
    register(shop.app)
    server.kill()
    pauses = on_first_pause(monkeypatch, server.start)
    state, _ = deliver(shop.app, "shop.flaky", **request_)

    assert pauses
    assert state in ("RETRY", "IGNORED", "SUCCESS")
    assert len(Stored(database).rows()) == 1


@ENDINGS
def test_answers_that_do_not_come(
    trap: str,
    own_postgres: OwnPostgres,
    monkeypatch: pytest.MonkeyPatch,
    register: Any,
    request_: Any,
) -> None:
    """While commits wait for a standby no attempt is answered: it is stored once all the same."""
    database = migrated_database(own_postgres())
    monkeypatch.setattr("celery_outbox.worker.PATIENCE", 2.0)
    monkeypatch.setattr("celery_outbox.stores.standalone.STATEMENT_TIMEOUT", 0.3)
    shop = make_shop(trap, outbox_database_url=database)
    register(shop.app, acks_late=True)
    busy = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'celery-outbox'"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")

        def wait_for_a_standby(name: str) -> None:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
            connection.execute("SELECT pg_reload_conf()")
            shown = "SHOW synchronous_standby_names"
            wait_until(lambda: connection.execute(shown).fetchone() == (name,), 10, "it is set")

        wait_for_a_standby("nobody")
        rejection = ended(shop.app, request_)
        attempts = len(connection.execute(busy.encode()).fetchall())
        wait_for_a_standby("")
        wait_until(lambda: not connection.execute(busy.encode()).fetchall(), 10, "all have ended")

    assert isinstance(rejection, Reject)
    assert attempts > 1
    assert len(Stored(database).rows()) == 1


@ENDINGS
@pytest.mark.usefixtures("impatient")
def test_a_database_that_stays_away(plain_broker: str, register: Any, request_: Any) -> None:
    """The delivery is given back in the end; nothing goes to the broker, which is there."""
    shop = make_shop(plain_broker, outbox_database_url=NOWHERE)
    register(shop.app, acks_late=True)
    rejection = ended(shop.app, request_)

    assert isinstance(rejection, Reject)
    assert rejection.requeue  # type: ignore[attr-defined]  # celery-types knows no requeue
    assert isinstance(rejection.__cause__, DatabaseUnavailable)
    assert arrived(plain_broker) == []


def ended(app: OutboxCelery, request: dict[str, Any]) -> Any:
    """Deliver the task and return the exception it ended with, raised or reported."""
    try:
        _, outcome = deliver(app, "shop.flaky", **request)
    except Reject as rejection:
        return rejection
    return getattr(outcome.exception, "exc", outcome.exception)


@pytest.mark.usefixtures("impatient")
def test_an_outbox_that_is_not_ready(trap: str, database: str) -> None:
    """So it is with missing tables: a person may be about to make them."""
    shop = make_shop(trap, outbox_database_url=database, outbox_schema="not_yet")
    flaky(shop.app, acks_late=True)
    rejection = ended(shop.app, {})

    assert rejection.requeue
    assert isinstance(rejection.__cause__, OutboxNotReady)


@pytest.mark.usefixtures("impatient")
def test_a_delivery_that_was_acknowledged(trap: str) -> None:
    """It cannot be given back: the failure is recorded, not hidden by a Reject without effect."""
    shop = make_shop(trap, outbox_database_url=NOWHERE)
    flaky(shop.app, acks_late=False)
    rejection = ended(shop.app, {})

    assert not rejection.requeue
    assert isinstance(rejection.reason, DatabaseUnavailable)


@pytest.mark.usefixtures("impatient")
def test_without_a_process_to_reject_for(trap: str) -> None:
    """Threads cannot reject once the body is over: there what follows is a recorded failure."""
    shop = make_shop(trap, outbox_database_url=NOWHERE)
    predecessor(shop.app, acks_late=True)
    dispatch_of(shop.app).begin_work()

    assert isinstance(ended(shop.app, FOLLOWED), DatabaseUnavailable)


@pytest.mark.usefixtures("impatient")
def test_what_is_refused_is_not_tried_again(
    trap: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the message itself is at fault, no later attempt would do."""
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE outbox.message ADD CHECK (task <> 'shop.flaky')")
    shop = make_shop(trap, outbox_database_url=database)
    flaky(shop.app, acks_late=True)
    pauses = on_first_pause(monkeypatch, lambda: None)

    assert not ended(shop.app, {}).requeue
    assert pauses == []


def test_an_outage_in_django(
    trap: str, django_database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django's own errors are waited out as well."""
    shop = make_shop(trap)
    predecessor(shop.app)
    right = connections[django_database].settings_dict
    wrong = {**right, "PORT": "1"}
    connections[django_database].close()
    connections[django_database].settings_dict = wrong
    on_first_pause(
        monkeypatch, lambda: setattr(connections[django_database], "settings_dict", right)
    )
    state, _ = deliver(shop.app, "shop.flaky", **FOLLOWED)

    assert state == "SUCCESS"
    assert stored.args() == [1]


def test_is_an_operational_error() -> None:
    """Code around a send that catches kombu's error for a broker that is away catches ours."""
    assert issubclass(DatabaseUnavailable, OperationalError)


@pytest.mark.parametrize(
    "signature", ["patient.flaky", "patient.first"], ids=["retry", "continuation"]
)
def test_a_real_worker(
    valkey_url: str, own_postgres: OwnPostgres, celery_worker: WorkerFactory, signature: str
) -> None:
    """It gives deliveries back for as long as the outage lasts, and loses none."""
    server: Postgres = own_postgres()
    database = migrated_database(server)
    server.kill()
    program = celery_worker(
        patient.__name__, PATIENT_BROKER=valkey_url, OUTBOX_DATABASE_URL=database
    )
    with Celery("sender", broker=valkey_url, set_as_current=False) as sender:
        follower = sender.signature("patient.first", immutable=True)
        sender.signature(signature).apply_async(link=follower)
    wait_until(lambda: program.output().count("not stored yet") > 1, 30, "a second delivery")
    server.start()

    wait_until(Stored(database).rows, 30, "the row of what follows")
