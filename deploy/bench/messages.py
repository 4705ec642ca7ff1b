"""Fills the outbox with real Celery messages (protocol 2), made by Postgres itself.

Their size is that of a small task: about 570 bytes of properties and 190 of body on the wire.
"""

from collections.abc import Sequence
from typing import Final

from bench.lab import Lab
from bench.queues import Route

#: Rows that differ in their ids and take the queues in turn.
FILL: Final = """
INSERT INTO outbox.message (message_id, task, routing_key, headers, properties, body,
                            content_type, content_encoding, declare)
SELECT id, 'shop.tasks.send_order_mail', queue,
       json_build_object(
           'lang', 'py', 'task', 'shop.tasks.send_order_mail', 'id', id, 'shadow', NULL,
           'eta', NULL, 'expires', NULL, 'group', NULL, 'group_index', NULL, 'retries', 0,
           'timelimit', json_build_array(NULL, NULL), 'root_id', id, 'parent_id', NULL,
           'argsrepr', format('(%%s, ''customer-%%s@example.com'')', n, n),
           'kwargsrepr', format('{''order_id'': %%s, ''note'': ''%%s''}', n, repeat('x', 40)),
           'origin', 'gen1234@shop-web-1', 'ignore_result', false,
           'replaced_task_nesting', 0, 'stamped_headers', NULL, 'stamps', json_build_object()),
       json_build_object(
           'delivery_mode', 2, 'priority', 0, 'correlation_id', id,
           'reply_to', '0f3c6a3c-6e0f-3d33-9f0e-1f0d8a4c0f3b'),
       convert_to(format(
           '[[%%s, "customer-%%s@example.com"], {"order_id": %%s, "note": "%%s"}, '
           '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
           n, n, n, repeat('x', 40)), 'UTF8'),
       'application/json', 'utf-8', declare::json
FROM (
    SELECT n, gen_random_uuid()::text AS id,
           (%(queues)s::text[])[1 + n %% %(count)s] AS queue,
           (%(declares)s::text[])[1 + n %% %(count)s] AS declare
    FROM generate_series(1, %(messages)s) n
    OFFSET 0  -- one id per row, wherever it is used
) made
"""

#: What is pending becomes sent: as if a relay had confirmed it in batches.
SEND_ALL: Final = """
WITH sent AS (DELETE FROM outbox.ready RETURNING id)
INSERT INTO outbox.receipt (span, ids)
SELECT int8range(min(id), max(id), '[]'), array_agg(id) FROM sent GROUP BY id / 500
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
    lab.admin.execute(
        FILL,
        {
            "messages": messages,
            "queues": [route.queue for route in routes],
            "declares": [route.declare for route in routes],
            "count": len(routes),
        },
    )


def refill(lab: Lab, messages: int, routes: Sequence[Route]) -> None:
    """Start afresh with so many pending messages."""
    reset(lab)
    fill(lab, messages, routes)
    settle(lab)


def send_all(lab: Lab) -> None:
    """Turn everything pending into messages sent a moment ago."""
    lab.admin.execute(SEND_ALL)
    settle(lab)
