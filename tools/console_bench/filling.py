"""Fills an outbox as an application leaves it that has run for a week."""

import sys
from typing import Final

import psycopg

#: As rows of an application that has run for a week; every eleventh is dead, the last are pending.
MESSAGES: Final = """
INSERT INTO outbox.message (id, slot, message_id, task, exchange, routing_key, headers, properties,
                            body, content_type, content_encoding, created_at)
OVERRIDING SYSTEM VALUE
SELECT i, (i * 15 / %(all)s) %% 16, gen_random_uuid()::text,
       'shop.' || (ARRAY['invoice', 'mail', 'stock', 'pay', 'audit'])[1 + i %% 5],
       '', 'queue-' || i %% 7,
       json_build_object('lang', 'py', 'task', 'shop.invoice', 'root_id', gen_random_uuid(),
           'parent_id', NULL, 'argsrepr', format('(%%s, ''EUR'')', i), 'kwargsrepr', '{}',
           'origin', 'gen4711@web-7', 'retries', 0, 'timelimit', '[null, null]'),
       '{"delivery_mode": 2, "priority": 0, "correlation_id": "0b5c9f4e"}',
       convert_to(format('[[%%s, "EUR"], {}, {"callbacks": null, "errbacks": null}]', i), 'utf8'),
       'application/json', 'utf-8',
       now() - interval '7 days' * (%(all)s - i)::float8 / %(all)s
  FROM generate_series(%(from)s::bigint, %(until)s::bigint) AS i
"""
DEAD: Final = """
INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)
SELECT id, slot, 'dead', created_at, 10,
       (ARRAY['312 NO_ROUTE: no queue takes it', 'message size ' || id || ' is larger than 16 MiB',
              '406 PRECONDITION_FAILED'])[1 + id %% 3]
  FROM outbox.message WHERE id BETWEEN %(from)s AND %(until)s AND id %% 11 = 0
   AND id <= %(settled)s
"""
PENDING: Final = """
INSERT INTO outbox.ready (id, slot) SELECT id, slot FROM outbox.message
 WHERE id BETWEEN %(from)s AND %(until)s AND id > %(settled)s
"""
SENT: Final = """
INSERT INTO outbox.receipt (slot, span, ids, sent_at)
SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id ORDER BY id),
       max(created_at) + interval '20 ms'
  FROM outbox.message WHERE id BETWEEN %(from)s AND %(until)s AND id %% 11 <> 0
   AND id <= %(settled)s
 GROUP BY slot, id / 500
"""
#: Of what was confirmed last workers have told; but for one in a hundred thousand.
DONE: Final = """
INSERT INTO inbox.receipt (message_id, task, outcome, worker, received_at, finished_at)
SELECT message_id, task, 'succeeded', 'celery@a', created_at, created_at FROM outbox.message
 WHERE id BETWEEN %(from)s AND %(until)s AND id %% 11 <> 0 AND id <= %(settled)s
   AND id > %(settled)s * 0.8 AND id %% 100003 <> 0
"""
WATCHED: Final = """
INSERT INTO inbox.watched (task, since)
SELECT DISTINCT 'shop.' || t, now() - interval '2 days'
  FROM unnest(ARRAY['invoice', 'mail', 'stock', 'pay', 'audit']) t
"""
SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "shared_buffers": "512MB",
}


def fill(url: str, millions: float) -> None:
    """Make the messages, half a million at a time, without the trigger that makes their work."""
    total, step = int(millions * 1_000_000), 500_000
    values = {"all": total, "settled": total * 11 // 12}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE outbox.message DISABLE TRIGGER make_work")
        for begin in range(1, total + 1, step):
            portion = {**values, "from": begin, "until": min(begin + step - 1, total)}
            for statement in (MESSAGES, DEAD, PENDING, SENT, DONE):
                connection.execute(statement, portion)
            print(f"{portion['until']:,} messages", file=sys.stderr, flush=True)
        connection.execute(WATCHED)
        connection.execute("ALTER TABLE outbox.message ENABLE ALWAYS TRIGGER make_work")
        connection.execute("SELECT setval('outbox.message_id_seq', %s)", [total])
        connection.execute("VACUUM ANALYZE")


def places(url: str, total: int) -> dict[str, object]:
    """What the addresses of pages are filled in with."""
    middle = total // 2
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT message_id, (now() - interval '1 day')::text FROM outbox.message WHERE id = %s",
            [middle],
        ).fetchall()
    message_id, yesterday = found[0]
    pending, dead = total - total // 24, middle // 11 * 11
    return {
        "middle": middle, "pending": pending, "dead": dead, "message_id": message_id,
        "yesterday": str(yesterday)[:19],
    }  # fmt: skip
