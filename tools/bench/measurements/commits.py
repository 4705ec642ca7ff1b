"""What the doorbell costs producers: commits a second of eight connections, in three ways.

Each transaction inserts one message and commits, within the server, so that no client's work hides
the difference. *without*: a schema without the doorbell. *awake*: no relay sleeps, as under load.
*asleep*: one sleeps and is never woken, so that every commit rings, as none does for long.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Final

import psycopg

from bench.lab import Lab
from bench.load import messages

CONNECTIONS: Final = 8
#: Turns that each way takes, with so many commits on each connection.
TURNS: Final = 5

COMMITS: Final = """
CREATE OR REPLACE PROCEDURE public.bench_commits(count integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR _ IN 1 .. count LOOP
        INSERT INTO outbox.message (message_id, task, body, content_type, content_encoding)
            VALUES (gen_random_uuid()::text, 'bench.task', '[]', 'application/json', 'utf-8');
        COMMIT;
    END LOOP;
END $$
"""
RING: Final = "PERFORM ring();"
MAKE_WORK: Final = "SELECT pg_get_functiondef('outbox.make_work'::regproc)"
SLEEP: Final = "SELECT pg_advisory_lock(bell) FROM outbox.bell()"
WAKE: Final = "SELECT pg_advisory_unlock(bell) FROM outbox.bell()"


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Commits a second by way, in turns."""
    messages.reset(lab)
    lab.admin.execute(COMMITS.encode())
    rung: str = lab.value(MAKE_WORK)
    assert RING in rung
    spent: dict[str, float] = {}
    ways: dict[str, Callable[[], None]] = {
        "without": lambda: _define(lab, rung.replace(RING, "")),
        "awake": lambda: _define(lab, rung),
        "asleep": lambda: _define(lab, rung),
    }
    try:
        with connections(lab) as opened:
            for turn in range(TURNS + 1):  # the first warms everything, and does not count
                for name, prepare in ways.items():
                    prepare()
                    if name == "asleep":
                        lab.admin.execute(SLEEP.encode())
                    seconds = commit(opened, lab.scale.commits)
                    if name == "asleep":
                        lab.admin.execute(WAKE.encode())
                    spent[name] = spent.get(name, 0.0) + (seconds if turn else 0.0)
    finally:
        _define(lab, rung)
        messages.reset(lab)
    made = TURNS * CONNECTIONS * lab.scale.commits
    return {name: {"rate": made / seconds} for name, seconds in spent.items()}


def _define(lab: Lab, function: str) -> None:
    lab.admin.execute(function.encode())


def commit(opened: list[psycopg.Connection], count: int) -> float:
    """Commit so often on each connection at once; the seconds it took."""

    def call(connection: psycopg.Connection) -> None:
        connection.execute(f"CALL public.bench_commits({int(count)})")

    began = perf_counter()
    with ThreadPoolExecutor(len(opened)) as threads:
        list(threads.map(call, opened))
    return perf_counter() - began


@contextmanager
def connections(lab: Lab) -> Iterator[list[psycopg.Connection]]:
    """So many, for the length of the block."""
    opened = [psycopg.connect(lab.database_url, autocommit=True) for _ in range(CONNECTIONS)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()
