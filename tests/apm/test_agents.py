"""With an agent at work, tasks join transactions as ever, and their traces go on in workers."""

import os
from typing import Any

import psycopg
import pytest

from apm.agents import Agent
from tests.apm import tasks
from tests.fixtures.otlp import Collector
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.rows import states
from tests.fixtures.waiting import wait_until

SECONDS = 60


@pytest.fixture
def headers(database: str, agent: Agent) -> Any:
    """The headers that a task sent within a transaction of the agent is stored with."""
    with psycopg.connect(database) as connection:

        def send() -> None:
            with tasks.app.outbox.using(connection):
                tasks.first.delay()

        agent.traced(send)
        connection.commit()
        (headers,) = connection.execute("SELECT headers FROM outbox.message").fetchone() or ()
        return headers


def test_connections_are_what_the_agent_makes_of_them(agent: Agent, database: str) -> None:
    """So that the other tests are about proxies, where this agent makes any."""
    with psycopg.connect(database) as connection:
        assert (type(connection) is not psycopg.Connection) == agent.proxies


def test_the_trace_is_stored_with_the_task(agent: Agent, headers: dict[str, Any]) -> None:
    """Among its headers, as Celery would have sent it; ddtrace puts it one level deeper."""
    assert agent.header in headers | headers.get("headers", {})


def test_the_trace_goes_on(
    agent: Agent, database: str, valkey_url: str, relay: RelayFactory, celery_worker: WorkerFactory
) -> None:
    """Outbox, relay, broker, inbox and outbox again: one trace, without what was rolled back."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE effect (task text, trace_id text)")
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=valkey_url)
    celery_worker(
        "tests.apm.tasks",
        OUTBOX_DATABASE_URL=database,
        TRACED_BROKER_URL=valkey_url,
        PYTHONPATH=os.environ["PYTHONPATH"],  # where the agent is started from
    )
    with psycopg.connect(database) as connection:

        def send() -> None:
            with tasks.app.outbox.using(connection):
                tasks.second.delay()
                connection.rollback()
                tasks.first.delay()
                connection.commit()

        trace_id = agent.traced(send)

    def effects() -> list[tuple[str, str]]:
        with psycopg.connect(database) as looking:
            return looking.execute("SELECT * FROM effect ORDER BY task").fetchall()

    wait_until(lambda: len(effects()) == 2, SECONDS, "both tasks")
    assert effects() == [("first", trace_id), ("second", trace_id)]


def test_the_relay_goes_on_with_the_trace(
    agent: Agent,
    headers: dict[str, Any],
    database: str,
    valkey_url: str,
    relay: RelayFactory,
    collector: Collector,
) -> None:
    """Where the agent writes a `traceparent`; where it does not, the relay has nothing to tell."""
    running = relay(
        OUTBOX_DATABASE_URL=database,
        OUTBOX_BROKER_URL=valkey_url,
        OUTBOX_TRACING="on",
        **collector.environment(),
    )
    wait_until(lambda: states(database)["sent"] == 1, SECONDS, "a sent message")
    assert running.stop() == 0
    sender = str((headers | headers.get("headers", {})).get("traceparent", ""))
    parents = {(span.trace_id, span.parent_id) for span in collector.seen}
    sampled = bool(sender and int(sender[-1], 16) % 2)
    assert parents == ({tuple(sender.split("-")[1:3])} if sampled else set())
    assert len(collector.seen) == (2 if parents else 0)
