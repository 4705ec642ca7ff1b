"""The app of a worker in which an agent runs: `celery -A tests.apm.tasks worker`."""

import os
from typing import Any

import psycopg

from apm.agents import AGENTS
from celery_inbox import idempotent
from celery_outbox import OutboxCelery

app = OutboxCelery("traced", broker=os.environ.get("TRACED_BROKER_URL"), set_as_current=False)


def connect() -> psycopg.Connection[Any]:
    """Open what a task works on, a proxy of the agent's where it makes them."""
    return psycopg.connect(os.environ["OUTBOX_DATABASE_URL"])


@app.task(bind=True, name="first")
@idempotent(connect)
def first(self: Any, conn: Any) -> None:
    """Write down which trace this is, and send the next task in the same transaction."""
    note(conn, "first")
    second.delay()


@app.task(name="second")
def second() -> None:
    """Write down which trace this is."""
    with connect() as conn:
        note(conn, "second")


def note(conn: Any, name: str) -> None:
    """Store the trace that is going on here."""
    trace_id = AGENTS[os.environ["APM_AGENT"]].trace_id()
    conn.execute("INSERT INTO effect (task, trace_id) VALUES (%s, %s)", (name, trace_id))
