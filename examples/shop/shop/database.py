"""The shop's tables, and the connection its tasks work on.

No table forbids a second row for an order: if a task's effects happened twice, it would show.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

Connection = psycopg.Connection[tuple[object, ...]]

TABLES = """
CREATE SCHEMA IF NOT EXISTS shop;
CREATE TABLE IF NOT EXISTS shop.orders (
    id       text PRIMARY KEY,
    customer text NOT NULL,
    placed   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS shop.reservation (order_id text NOT NULL, item text NOT NULL);
CREATE TABLE IF NOT EXISTS shop.shipment (order_id text NOT NULL, parcels int NOT NULL);
CREATE TABLE IF NOT EXISTS shop.invoice (
    number   bigint GENERATED ALWAYS AS IDENTITY,
    order_id text NOT NULL
);
CREATE TABLE IF NOT EXISTS shop.email (order_id text NOT NULL, subject text NOT NULL);
CREATE TABLE IF NOT EXISTS shop.notification (order_id text NOT NULL, channel text NOT NULL);
CREATE TABLE IF NOT EXISTS shop.gift (order_id text NOT NULL);
-- Every arrival of a message at a worker, duplicates included; written outside the tasks' own
-- transactions, so that it also tells of those that were rolled back.
CREATE TABLE IF NOT EXISTS shop.delivery (
    message_id text NOT NULL,
    retries    int NOT NULL,
    task       text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);
"""

_kept: dict[bool, Connection] = {}


def session(*, autocommit: bool = False) -> Connection:
    """Return this worker process's connection, a new one where the last was lost."""
    kept = _kept.get(autocommit)
    if kept is None or kept.closed:
        url = os.environ["OUTBOX_DATABASE_URL"]
        kept = _kept[autocommit] = psycopg.connect(url, autocommit=autocommit)
    return kept


@contextmanager
def connect() -> Iterator[Connection]:
    """Lend a task the connection; it stays open for the next one."""
    yield session()
