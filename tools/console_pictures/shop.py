"""A shop that is invented: its messages by state, what its workers say, and an hour of its past."""

import json
import math
import random
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

import psycopg

from outbox_console.outbox.samples import Sample

#: Messages of a shop; `kind` says what becomes of them below.
INSERT: Final = """
INSERT INTO outbox.message (message_id, task, exchange, routing_key, headers, properties, body,
                            content_type, content_encoding, created_at, available_at)
SELECT gen_random_uuid()::text,
       (ARRAY['shop.orders.send_invoice', 'shop.mail.welcome', 'shop.stock.reserve',
              'payments.capture'])[1 + i %% 4],
       CASE WHEN i %% 4 = 3 THEN 'payments' ELSE '' END,
       (ARRAY['celery', 'mail', 'celery', 'eu.captured'])[1 + i %% 4],
       json_build_object('lang', 'py', 'argsrepr', format('(%%s, ''EUR'')', 8000 + i),
           'kwargsrepr', CASE WHEN i %% 3 = 0 THEN '{''gift'': True}' ELSE '{}' END,
           'root_id', gen_random_uuid(), 'retries', 0),
       '{"delivery_mode": 2, "priority": 0}',
       convert_to(format('[[%%s, "EUR"], {}, {"callbacks": null, "errbacks": null}]', 8000 + i),
                  'utf8'),
       'application/json', 'utf-8',
       now() - CASE WHEN %(kind)s = 'dead' THEN interval '3 h' ELSE interval '20 ms' END,
       CASE WHEN %(kind)s = 'scheduled' THEN now() + (i %% 500 * 7 + 60) * interval '1 second' END
  FROM generate_series(1, %(count)s) AS i
"""
#: What is pending, but for what was so from the beginning.
CONFIRM: Final = """
WITH gone AS (DELETE FROM outbox.ready WHERE id > %s RETURNING id, slot)
INSERT INTO outbox.receipt (slot, span, ids)
SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id ORDER BY id) FROM gone GROUP BY slot
"""
ENDINGS: Final[dict[str, LiteralString]] = {
    "sent": """
WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)
INSERT INTO outbox.receipt (slot, span, ids, sent_at)
SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id ORDER BY id),
       now() + (min(id) - (SELECT max(id) FROM gone)) * interval '30 ms'
  FROM gone GROUP BY slot, id / 500""",
    "dead": """
WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)
INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)
SELECT id, slot, 'dead', now() - random() * random() * interval '3 h', 10,
       (ARRAY['312 NO_ROUTE: no queue takes eu.captured from exchange payments',
              'PRECONDITION_FAILED - message size 22212311 is larger than configured max size '
              || '16777216'])[1 + (id % 5 = 0)::int]
  FROM gone""",
    "expired": """
WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)
INSERT INTO outbox.expiry (id, slot, last_error)
SELECT id, slot, 'a worker was told' FROM gone""",
    "pending": "SELECT 1",
    "scheduled": "SELECT 1",
}
WATCHED: Final = (
    "INSERT INTO inbox.watched SELECT DISTINCT task, now() - interval '4 h' FROM outbox.sent"
)
RECEIPTS: Final = """
INSERT INTO inbox.receipt (message_id, task, outcome, error, worker, received_at, finished_at)
SELECT message_id, task, CASE WHEN id % 23 = 0 THEN 'failed' ELSE 'succeeded' END,
       CASE WHEN id % 23 = 0 THEN 'KeyError' END, 'celery@web-1', sent_at, sent_at
  FROM outbox.sent WHERE id % 1013 <> 0
"""
#: Of what a relay has just confirmed.
DONE: Final = """
INSERT INTO inbox.receipt (message_id, task, outcome, worker, received_at, finished_at)
SELECT message_id, task, 'succeeded', 'celery@web-2', now(), now() FROM outbox.message
 ORDER BY id DESC LIMIT 10 ON CONFLICT DO NOTHING
"""
#: How many of each, in this order: what is pending comes last.
ROWS: Final = {
    "docs": {"sent": 4000, "expired": 3, "dead": 37, "scheduled": 212, "pending": 18},
    "none": {},
    "ten": {"sent": 3, "expired": 1, "dead": 5, "scheduled": 2, "pending": 2},
    "many": {
        "sent": 600_000, "expired": 50_000, "dead": 100_000, "scheduled": 100_000,
        "pending": 150_000,
    },
}  # fmt: skip


def an_hour(at: datetime) -> Iterator[Sample]:
    """What an hour of a shop might look like: a flow, and a broker that was away for a while."""
    chance, waiting = random.Random(7), 0.0
    for second in range(-3600, 0, 2):
        rate = 38 + 14 * math.sin(second / 700) + chance.gauss(0, 3)
        away = -2100 < second < -1900
        sent = 0.0 if away else min(rate + waiting / 2, 160)
        waiting = max(0.0, waiting + 2 * (rate - sent))
        yield Sample(
            at=at + timedelta(seconds=second),
            pending=int(waiting) + chance.randint(2, 18),
            scheduled=212,
            dead=37 if second > -1900 else 0,
            expired=3,
            oldest=max(0.02, (second + 2100) if away else waiting / 160),
            committed=rate,
            confirmed=sent,
            lag=0.014,
            quiet=0.1,
            relays=2,
            executed=sent * 0.99,
        )


def go_on(url: str, ended: threading.Event) -> None:
    """Forty orders a second, and a relay that confirms them, until told to stop."""
    with psycopg.connect(url, autocommit=True) as connection:
        stays = connection.execute("SELECT max(id) FROM outbox.ready").fetchall()[0]
        while not ended.wait(0.24):
            connection.execute(INSERT, {"kind": "sent", "count": 10})
            connection.execute(CONFIRM, stays)
            connection.execute(DONE)


def fill(url: str, rows: dict[str, int]) -> int:
    """Make the messages of each kind; the id of a dead one."""
    with psycopg.connect(url) as connection:
        for kind, count in rows.items():
            connection.execute(INSERT, {"kind": kind, "count": count})
            connection.execute(ENDINGS[kind])
        found = connection.execute("SELECT max(id) FROM outbox.dead WHERE task ~ 'capture'")
        dead = found.fetchall()[0][0] or 0
        if rows:
            work(connection)
        act = """SELECT outbox.act('discard', ARRAY(
            SELECT id FROM outbox.dead WHERE id <> %s ORDER BY id LIMIT 1), %s, %s)"""
        for name, why in (("ada", "a test order"), ("grace", "cancelled by phone, ticket 4711")):
            connection.execute(act, [dead, name, why])
    return int(dead)


def work(connection: psycopg.Connection[Any]) -> None:
    """Two workers that announce themselves, one that was lost, and receipts of what was sent."""
    tasks = ["shop.orders.send_invoice", "shop.mail.welcome", "shop.stock.reserve", "shop.report"]
    for node, queues, seconds in (
        ("celery@web-1", ["celery"], 3600),
        ("celery@web-2", ["celery", "mail"], 3600),
        ("celery@old-7", ["celery"], -600),
    ):
        said = json.dumps({"queues": queues, "tasks": [*tasks, "shop.cleanup"]})
        connection.execute("SELECT inbox.announce(%s, %s, %s)", [node, said, seconds])
    connection.execute(WATCHED)
    connection.execute(RECEIPTS)
