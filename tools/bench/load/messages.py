"""Fills the outbox with what the producer writes for a small task, copied by Postgres itself.

About 570 bytes of properties and 190 of body on the wire, as Celery's protocol 2 has it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import psycopg

from bench.lab import Lab
from bench.load.queues import Route
from bench.load.tasks import ARGUMENTS, outbox_app

#: The row of a task as our producer wrote it; its id is to be replaced.
WRITTEN: Final = """
SELECT message_id, task, headers::text, properties::text, body, content_type, content_encoding
FROM outbox.message ORDER BY id DESC LIMIT 1
"""
#: Copies that differ in their ids and take the queues in turn.
FILL: Final = """
INSERT INTO outbox.message (message_id, task, routing_key, headers, properties, body,
                            content_type, content_encoding, declare)
SELECT id, %(task)s, queue, replace(%(headers)s, %(id)s, id)::json,
       replace(%(properties)s, %(id)s, id)::json, %(body)s, %(type)s, %(encoding)s, declare::json
FROM (
    SELECT gen_random_uuid()::text AS id,
           (%(queues)s::text[])[1 + n %% %(count)s] AS queue,
           (%(declares)s::text[])[1 + n %% %(count)s] AS declare
    FROM generate_series(1, %(messages)s) n
    OFFSET 0  -- one id per row, wherever it is used
) made
"""

#: What is pending becomes sent: as if a relay had confirmed it in batches.
SEND_ALL: Final = """
WITH sent AS (DELETE FROM outbox.ready RETURNING id, slot)
INSERT INTO outbox.receipt (slot, span, ids)
SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id) FROM sent GROUP BY slot, id / 500
"""


def reset(lab: Lab) -> None:
    """Empty the outbox."""
    lab.admin.execute("TRUNCATE outbox.message, outbox.ready, outbox.parked, outbox.receipt")
    settle(lab)


def settle(lab: Lab) -> None:
    """Do now what Postgres would otherwise do in the middle of a measurement."""
    lab.admin.execute("VACUUM (ANALYZE) outbox.message, outbox.ready, outbox.receipt")
    lab.admin.execute("CHECKPOINT")


def fill(lab: Lab, messages: int, routes: Sequence[Route]) -> None:
    """Add pending messages to the outbox."""
    lab.admin.execute(FILL, _filling(lab, messages, routes))


def fill_schema(
    connection: psycopg.Connection[Any], lab: Lab, schema: str, messages: int, route: Route
) -> None:
    """Add pending messages to the outbox in a schema of another database."""
    text = FILL.replace("outbox.message", f"{schema}.message")
    connection.execute(text.encode(), _filling(lab, messages, [route]))


def _filling(lab: Lab, messages: int, routes: Sequence[Route]) -> dict[str, object]:
    return {
        **_written(lab.database_url),
        "messages": messages,
        "queues": [route.queue for route in routes],
        "declares": [route.declare for route in routes],
        "count": len(routes),
    }


@cache
def _written(database_url: str) -> dict[str, object]:
    """What the producer makes of the task, in a transaction that is rolled back."""
    app, task = outbox_app("celery")
    with psycopg.connect(database_url) as connection:
        with app.outbox.using(connection):
            task.delay(*ARGUMENTS.positional, **ARGUMENTS.named)
        row = connection.execute(WRITTEN).fetchall()[0]
        connection.rollback()
    names = ("id", "task", "headers", "properties", "body", "type", "encoding")
    return dict(zip(names, row, strict=True))


def refill(lab: Lab, messages: int, routes: Sequence[Route]) -> None:
    """Start afresh with so many pending messages."""
    reset(lab)
    fill(lab, messages, routes)
    settle(lab)


def send_all(lab: Lab) -> None:
    """Turn everything pending into messages sent a moment ago."""
    lab.admin.execute(SEND_ALL)
    settle(lab)
