"""A full queue costs a probe now and then, and once it has room all that waited arrives, once."""

import psycopg
import pytest

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import insert_rows, states
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
ROOM, ROWS = 100, 250


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
