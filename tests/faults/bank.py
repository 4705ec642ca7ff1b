"""A bank whose workers move money; nothing in its tables forbids moving it twice.

`celery -A tests.faults.bank worker`: configured by the environment alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from celery_inbox import idempotent, reliable
from celery_outbox import OutboxCelery

ACCOUNTS = 100
#: Every tenth transfer is confirmed by a task of its own, sent in the transfer's transaction.
CONFIRMED = 10

TABLES = f"""
CREATE SCHEMA bank;
CREATE TABLE bank.account (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
INSERT INTO bank.account SELECT generate_series(0, {ACCOUNTS - 1});
CREATE TABLE bank.ordered (number int PRIMARY KEY);
CREATE TABLE bank.done (number int NOT NULL);
CREATE TABLE bank.confirmed (number int NOT NULL);
"""
_MOVE = "UPDATE bank.account SET balance = balance + %s WHERE id = %s"

app = OutboxCelery("bank", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get("BANK_BROKER_URL"),
    task_ignore_result=True,
    task_time_limit=60,
)
if (app.conf.broker_url or "").startswith("redis"):
    # What a lost worker held is given back after this time, and looked for every second.
    app.conf.broker_transport_options = {
        "visibility_timeout": 10,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 5,
    }
    app.conf.task_time_limit = 9
reliable(app, delivery_limit=100)

_kept: list[psycopg.Connection[Any]] = []


@contextmanager
def connect() -> Iterator[psycopg.Connection[Any]]:
    """Lend this worker process's connection, a new one where the last was lost."""
    if not _kept or _kept[0].closed:
        _kept[:] = [psycopg.connect(os.environ["OUTBOX_DATABASE_URL"])]
    yield _kept[0]


@app.task(bind=True)
@idempotent(connect)
def transfer(self: Any, conn: Any, number: int, source: int, target: int, amount: int) -> None:
    """Move money."""
    conn.execute(_MOVE, (-amount, source))
    conn.execute(_MOVE, (amount, target))
    conn.execute("INSERT INTO bank.done VALUES (%s)", (number,))
    if number % CONFIRMED == 0:
        confirm.delay(number)


@app.task(bind=True)
@idempotent(connect)
def confirm(self: Any, conn: Any, number: int) -> None:
    """Note it for the customers."""
    conn.execute("INSERT INTO bank.confirmed VALUES (%s)", (number,))
