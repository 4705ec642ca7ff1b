"""What the outbox costs a producer: `.delay()` in a transaction against INSERTs written by hand.

The ways take turns, transaction by transaction, on one connection. The INSERT by hand has the same
columns, and values that are ready beforehand: it pays for nothing but itself. One message per
transaction is sent to a database that is half a millisecond away, too.
"""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final
from uuid import uuid4

import psycopg

from bench.instruments.postgres import position, wal_since
from bench.lab import Connection, Lab
from bench.load import messages
from bench.load.tasks import ARGUMENTS, outbox_app
from bench.programs.slow_link import slowed

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

Way = Callable[[], None]


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Send by each way in turns; values by way."""
    messages.reset(lab)
    with (
        slowed(lab.database_url) as far,
        psycopg.connect(lab.database_url) as connection,
        psycopg.connect(far) as distant,
    ):
        ways = _ways(lab, connection)
        ways |= {f"{name}, 0.5 ms away": way for name, way in _singly(lab, distant).items()}
        for way in ways.values():
            way()  # warms imports, plans and caches, and takes the WAL that follows a checkpoint
        seconds = dict.fromkeys(ways, 0.0)
        wal = dict.fromkeys(ways, 0)
        for _ in range(lab.scale.transactions):
            for name, way in ways.items():
                before = position(lab)
                began = perf_counter()
                way()
                seconds[name] += perf_counter() - began
                wal[name] += wal_since(lab, before)
    sent = lab.scale.transactions * TASKS
    return {name: {"rate": sent / seconds[name], "wal": wal[name] / sent} for name in ways}


def _ways(lab: Lab, connection: Connection) -> dict[str, Way]:
    transaction, delay, insert = _sends(lab, connection)

    def delays() -> None:
        with transaction():
            for _ in range(TASKS):
                delay()

    def inserts() -> None:
        with connection.transaction():
            for _ in range(TASKS):
                insert()

    return {
        "100 in one transaction, .delay()": delays,
        "100 in one transaction, INSERT by hand": inserts,
        **_singly(lab, connection),
    }


def _singly(lab: Lab, connection: Connection) -> dict[str, Way]:
    transaction, delay, insert = _sends(lab, connection)

    def delays() -> None:
        for _ in range(TASKS):
            with transaction():
                delay()

    def inserts() -> None:
        for _ in range(TASKS):
            with connection.transaction():
                insert()

    return {
        "one per transaction, .delay()": delays,
        "one per transaction, INSERT by hand": inserts,
    }


def _sends(lab: Lab, connection: Connection) -> tuple[Callable[[], Any], Way, Way]:
    """A transaction of the outbox, a task sent in it, and the same row inserted by hand."""
    app, task = outbox_app("producer")

    def transaction() -> Any:
        return app.outbox.transaction(connection)

    def delay() -> None:
        task.delay(*ARGUMENTS.positional, **ARGUMENTS.named)

    with transaction():
        delay()
    row = lab.admin.execute(SENT).fetchall()[0]

    def insert() -> None:
        connection.execute(BY_HAND, (str(uuid4()), *row))

    return transaction, delay, insert
