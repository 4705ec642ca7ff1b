"""What the outbox costs a producer: `.delay()` in a transaction against INSERTs written by hand.

The ways take turns, transaction by transaction, on one connection. The INSERT by hand has the same
columns, and values that are ready beforehand: it pays for nothing but itself.
"""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final
from uuid import uuid4

import psycopg

from bench import messages
from bench.lab import Connection, Lab
from bench.tasks import ARGUMENTS, outbox_app

#: Tasks in one transaction.
TASKS: Final = 100

SENT: Final = """
SELECT task, exchange, routing_key, headers::text, properties::text, body, content_type,
       content_encoding, mandatory, declare::text, available_at, expires_at
FROM outbox.message LIMIT 1
"""
BY_HAND: Final = """
INSERT INTO outbox.message (
    message_id, task, exchange, routing_key, headers, properties, body, content_type,
    content_encoding, mandatory, declare, available_at, expires_at
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
LSN: Final = "SELECT pg_current_wal_insert_lsn()"
WAL_SINCE: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)::bigint"

Way = Callable[[], None]


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Send by each way in turns; values by way."""
    messages.reset(lab)
    with psycopg.connect(lab.database_url) as connection:
        ways = _ways(lab, connection)
        for way in ways.values():
            way()  # warms imports, plans and caches, and takes the WAL that follows a checkpoint
        seconds = dict.fromkeys(ways, 0.0)
        wal = dict.fromkeys(ways, 0)
        for _ in range(lab.scale.transactions):
            for name, way in ways.items():
                before = lab.value(LSN)
                began = perf_counter()
                way()
                seconds[name] += perf_counter() - began
                wal[name] += lab.value(WAL_SINCE, before)
    sent = lab.scale.transactions * TASKS
    return {name: {"rate": sent / seconds[name], "wal": wal[name] / sent} for name in ways}


def _ways(lab: Lab, connection: Connection) -> dict[str, Way]:
    app, task = outbox_app("producer")

    def delay() -> None:
        task.delay(*ARGUMENTS.positional, **ARGUMENTS.named)

    def delays() -> None:
        with app.outbox.transaction(connection):
            for _ in range(TASKS):
                delay()

    def delays_one_by_one() -> None:
        for _ in range(TASKS):
            with app.outbox.transaction(connection):
                delay()

    with app.outbox.transaction(connection):
        delay()
    row = lab.admin.execute(SENT).fetchall()[0]

    def insert() -> None:
        connection.execute(BY_HAND, (str(uuid4()), *row))

    def inserts() -> None:
        with connection.transaction():
            for _ in range(TASKS):
                insert()

    def inserts_one_by_one() -> None:
        for _ in range(TASKS):
            with connection.transaction():
                insert()

    return {
        "100 in one transaction, .delay()": delays,
        "100 in one transaction, INSERT by hand": inserts,
        "one per transaction, .delay()": delays_one_by_one,
        "one per transaction, INSERT by hand": inserts_one_by_one,
    }
