"""What takes nothing costs a probe now and then; once it does, all that waited arrives, once."""

import psycopg
import pytest
from kombu import Connection, Exchange, Queue

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import insert_rows, states
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
ROOM, ROWS = 100, 250
#: How the broker's log says that it closed a channel.
CLOSED = "caused a channel exception"


def waiting(database: str) -> int:
    """How many messages are left alone for minutes."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM outbox.parked WHERE state = 'retry' AND attempts = 0"
            " AND available_at > now() + interval '5 min'"
        ).fetchone()
    return int(row[0]) if row else 0


@pytest.mark.parametrize("relays", [1, 2])
def test_a_full_queue_is_probed(
    relay: RelayFactory, database: str, broker: Broker, relays: int
) -> None:
    """All but a probe wait, others are sent meanwhile, and none has to be asked for again."""
    broker.declare("narrow", **{"x-max-length": ROOM, "x-overflow": "reject-publish"})
    broker.declare("celery")
    with psycopg.connect(database) as connection:
        insert_rows(connection, ROWS, routing_key="narrow")
    environment = {
        "OUTBOX_DATABASE_URL": database,
        "OUTBOX_BROKER_URL": broker.url,
        "OUTBOX_RETRY_DELAY": "50ms",
    }
    for _ in range(relays):
        relay(**environment)

    wait_until(lambda: waiting(database) >= ROWS - ROOM - relays, DEADLINE, "the rest held")
    with psycopg.connect(database) as connection:
        insert_rows(connection, 20, routing_key="celery")
    wait_until(lambda: len(broker.take_all("celery")) == 20, DEADLINE, "others sent")
    ids: list[str | None] = []
    while len(ids) < ROWS:
        taken = broker.take_all("narrow")
        ids += [message.properties.get("correlation_id") for message in taken]
        wait_until(
            lambda: states(database)["pending"] == 0 or broker.depth("narrow") == ROOM,
            DEADLINE,
            "the next to arrive",
        )

    assert len(ids) == ROWS
    assert states(database) == {"pending": 0, "scheduled": 0, "sent": ROWS + 20, "dead": 0}


def test_an_exchange_that_is_forbidden_is_probed(
    relay: RelayFactory, database: str, broker: Broker
) -> None:
    """A probe costs a channel; all others wait, at no attempt, until the right is given back."""
    with Connection(broker.url) as to_broker:
        Queue("news", Exchange("news"), "news")(to_broker.default_channel).declare()
    broker.declare("celery")
    broker.node.permit(broker.vhost, "^(?!news$)")
    log = broker.node.folder / "log" / "node.log"
    before = log.read_text(errors="replace").count(CLOSED)
    with psycopg.connect(database) as connection:
        insert_rows(connection, ROWS, exchange="news", routing_key="news")
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url, OUTBOX_RETRY_DELAY="50ms")
    wait_until(lambda: waiting(database) == ROWS, DEADLINE, "all held")
    with psycopg.connect(database) as connection:
        insert_rows(connection, 20, routing_key="celery")
    wait_until(lambda: len(broker.take_all("celery")) == 20, DEADLINE, "others sent")
    assert log.read_text(errors="replace").count(CLOSED) - before < ROWS / 10

    broker.node.permit(broker.vhost)
    wait_until(lambda: states(database)["sent"] == ROWS + 20, DEADLINE, "all sent")
    assert broker.depth("news") == ROWS
