"""Celery's options, from `apply_async` through the outbox and the relay to the queue."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from kombu import Queue

from celery_outbox import OutboxCelery
from servers.rabbitmq_packages import version
from tests.fixtures.broker import Broker
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.rows import ids_in, states

DAYS = timedelta(days=10)


@pytest.fixture
def app() -> OutboxCelery:
    """A producer's app, with a queue of priorities."""
    urgent = Queue("urgent", queue_arguments={"x-max-priority": 9})
    settings = {"task_queues": [Queue("celery"), urgent], "task_default_queue": "celery"}
    return OutboxCelery("shop", set_as_current=False, changes=settings)


@pytest.fixture
def drain(relay: RelayFactory, database: str, broker: Broker) -> Any:
    """Publish everything due; the bodies' first arguments as they wait in a queue."""

    def drain(queue: str = "celery") -> list[Any]:
        program: Relay = relay(
            "run", "--drain", OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url
        )
        assert program.wait() == 0
        return [message.json()[0][0] for message in broker.take_all(queue)]

    return drain


def test_priority(app: OutboxCelery, drain: Any, connection: psycopg.Connection[Any]) -> None:
    """The broker hands out the urgent ones first, whatever the order they were sent in."""
    with app.outbox.transaction(connection):
        for priority in (0, 9, 5):
            app.send_task("t", (priority,), queue="urgent", priority=priority)

    assert drain("urgent") == [9, 5, 0]


def test_no_priority_is_not_priority_0(
    app: OutboxCelery, drain: Any, connection: psycopg.Connection[Any], broker: Broker
) -> None:
    """In a quorum queue of RabbitMQ 4.3 none counts as 4: it is handed out before 3 and 0."""
    broker.declare("levels", **{"x-queue-type": "quorum"})
    with app.outbox.transaction(connection):
        for priority in (0, 3, None, 5):
            app.send_task("t", (priority,), queue="levels", priority=priority)

    handed_out = drain("levels")

    if version(broker.node.root) >= "4.3":
        assert handed_out == [5, None, 3, 0]
    else:
        assert sorted(handed_out, key=str) == [0, 3, 5, None]
    rows = connection.execute("SELECT properties ->> 'priority' FROM outbox.message ORDER BY id")
    assert [priority for (priority,) in rows] == ["0", "3", None, "5"]


def test_eta_of_days(app: OutboxCelery, drain: Any, connection: psycopg.Connection[Any]) -> None:
    """Held in the outbox while slots are emptied around it; no queue has it before its time."""
    with app.outbox.transaction(connection):
        later = app.send_task("t", ("later",), countdown=DAYS.total_seconds())
        app.send_task("t", ("now",))
    assert drain() == ["now"]

    let_pass(connection, DAYS)

    assert drain() == ["later"]
    row = connection.execute(
        "SELECT headers ->> 'eta' FROM outbox.message WHERE message_id = %s", [later.id]
    ).fetchone()
    assert row is not None
    assert datetime.fromisoformat(row[0]) > datetime.now(UTC) + DAYS / 2


def let_pass(connection: psycopg.Connection[Any], time: timedelta) -> None:
    """Make everything older, and let retention do what it does meanwhile."""
    with connection.transaction():
        connection.execute(
            "UPDATE outbox.message SET created_at = created_at - %(time)s,"
            " available_at = available_at - %(time)s, slot = (slot + 1) %% 16",
            {"time": time},
        )
        connection.execute("UPDATE outbox.parked SET available_at = available_at - %s", [time])
        connection.execute("UPDATE outbox.parked SET slot = (slot + 1) % 16")
    with connection.transaction():
        connection.execute("SELECT outbox.purge('7 days')")


def test_expires(
    app: OutboxCelery, drain: Any, connection: psycopg.Connection[Any], database: str
) -> None:
    """What expired and nobody waits for is not sent; the rest is."""
    with app.outbox.transaction(connection):
        past = datetime.now(UTC) - timedelta(seconds=1)
        late = app.send_task("t", ("late",), expires=past, ignore_result=True)
        app.send_task("t", ("in time",), expires=3600)

    assert drain() == ["in time"]
    assert ids_in(database, "expired") == {late.id}
    assert ids_in(database, "dead") == set()


@pytest.mark.parametrize("committed", [True, False])
def test_cancel(
    app: OutboxCelery,
    drain: Any,
    connection: psycopg.Connection[Any],
    database: str,
    committed: bool,
) -> None:
    """Taken back by the transaction that says so, if it commits."""
    with app.outbox.transaction(connection):
        sent = app.send_task("t", ("tea",))
        scheduled = app.send_task("t", ("coffee",), countdown=3600)
        app.send_task("t", ("water",))
    with connection.transaction(force_rollback=not committed):
        assert app.outbox.cancel(connection, sent.id)
        assert app.outbox.cancel(connection, scheduled.id)
        assert not app.outbox.cancel(connection, "unknown")

    assert drain() == (["water"] if committed else ["tea", "water"])
    assert states(database)["scheduled"] == (0 if committed else 1)
