"""Eight connections that commit one message each, over and over, within the server.

So no client's work hides a difference.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Final

import psycopg

from bench.lab import Lab

CONNECTIONS: Final = 8
PROCEDURE: Final = """
CREATE OR REPLACE PROCEDURE public.bench_commits(count integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR _ IN 1 .. count LOOP
        INSERT INTO outbox.message (message_id, task, body, content_type, content_encoding)
            VALUES (gen_random_uuid()::text, 'bench.task', '[]', 'application/json', 'utf-8');
        COMMIT;
    END LOOP;
END $$
"""


@contextmanager
def committers(lab: Lab) -> Iterator[list[psycopg.Connection]]:
    """Connections that can commit so, for the length of the block."""
    lab.admin.execute(PROCEDURE.encode())
    opened = [psycopg.connect(lab.database_url, autocommit=True) for _ in range(CONNECTIONS)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


def commit(connections: list[psycopg.Connection], count: int) -> float:
    """Commit so often on each of them at once; the seconds it took."""

    def call(connection: psycopg.Connection) -> None:
        connection.execute(f"CALL public.bench_commits({int(count)})")

    began = perf_counter()
    with ThreadPoolExecutor(len(connections)) as threads:
        list(threads.map(call, connections))
    return perf_counter() - began
