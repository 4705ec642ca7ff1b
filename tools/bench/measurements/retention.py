"""What retention costs those who send meanwhile: fifteen old slots, in each an old unsent message.

That message, a reminder with the lowest id of its slot, keeps the slot from going as a whole. A
producer inserts all the while: *before* retention, and *beside* it, while `outbox.purge` is called
until it says 0, as the relay does. *portions* are these calls.
"""

import threading
from collections.abc import Mapping
from time import perf_counter
from typing import Final

import psycopg

from bench.instruments.latencies import spread
from bench.lab import Lab
from bench.load import messages

SLOTS: Final = 16
#: How long producers are measured before, in seconds, and their pause between two messages.
BEFORE: Final = 3.0
PAUSE: Final = 0.005

NOW_SLOT: Final = "SELECT (extract(epoch FROM now())::bigint / 43200 %% 16)::integer"
FILL: Final = """
INSERT INTO outbox.message
    (slot, message_id, task, body, content_type, content_encoding, created_at)
SELECT %(slot)s, 'm' || n, 'bench.task', '[]', 'application/json', 'utf-8',
       now() - %(age)s::interval
FROM generate_series(1, %(rows)s) n
"""
REMIND: Final = """
INSERT INTO outbox.parked (id, slot, state, available_at)
SELECT min(id), %(slot)s, 'scheduled', now() + interval '30 days'
FROM outbox.message WHERE slot = %(slot)s
"""
CONFIRM: Final = """
INSERT INTO outbox.receipt (slot, sent_at, span, ids)
SELECT %(slot)s, now() - %(age)s::interval, int8range(min(id), max(id), '[]'), array_agg(id)
FROM (SELECT id, row_number() OVER (ORDER BY id) AS place
      FROM outbox.message WHERE slot = %(slot)s) m
WHERE place > 1 GROUP BY place / 500
"""
WORK: Final = "ALTER TABLE outbox.message {} TRIGGER make_work"
SEND: Final = """
INSERT INTO outbox.message (message_id, task, body, content_type, content_encoding)
VALUES ('n', 'bench.task', '[]', 'application/json', 'utf-8')
"""
PURGE: Final = "SELECT outbox.purge('7 days')"


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Latencies of producers and of portions in milliseconds, and messages forgotten a second."""
    messages.reset(lab)
    _fill(lab)
    sent: list[float] = []
    ending = threading.Event()
    producer = threading.Thread(target=_produce, args=(lab, sent, ending))
    producer.start()
    try:
        ending.wait(BEFORE)
        before, began = [*sent], perf_counter()
        forgotten, portions = _purge(lab)
        seconds, beside = perf_counter() - began, sent[len(before) :]
    finally:
        ending.set()
        producer.join()
        messages.reset(lab)
    return {
        "before": spread(before),
        "beside": spread(beside),
        "portions": spread(portions),
        "forgotten": {"rate": forgotten / seconds},
    }


def _fill(lab: Lab) -> None:
    now_slot = lab.value(NOW_SLOT)
    lab.admin.execute(WORK.format("DISABLE").encode())
    try:
        for back in range(1, SLOTS):
            slot = {"slot": (now_slot - back) % SLOTS, "age": f"{8 + back / 2} days"}
            lab.admin.execute(FILL, {**slot, "rows": lab.scale.kept})
            lab.admin.execute(REMIND, slot)
            lab.admin.execute(CONFIRM, slot)
    finally:
        lab.admin.execute(WORK.format("ENABLE ALWAYS").encode())
    messages.settle(lab)


def _produce(lab: Lab, sent: list[float], ending: threading.Event) -> None:
    with psycopg.connect(lab.database_url, autocommit=True) as connection:
        while not ending.wait(PAUSE):
            began = perf_counter()
            connection.execute(SEND)
            sent.append(perf_counter() - began)


def _purge(lab: Lab) -> tuple[int, list[float]]:
    """Forget until nothing is left to do: how much, and how long each portion took."""
    total, portions = 0, []
    with psycopg.connect(lab.database_url, autocommit=True) as connection:
        while True:
            began = perf_counter()
            row = connection.execute(PURGE).fetchone()
            portions.append(perf_counter() - began)
            if not row or not row[0]:
                return total, portions
            total += row[0]
