"""What dashboard and alerts ask for, a real relay answers through a real Prometheus, under load."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any, Final, LiteralString

import psycopg
import pytest

from servers import Prometheus
from tests.deploy.board import alerts, metrics_in, queries
from tests.fixtures.broker import Broker
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.prometheus import OwnPrometheus
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
TASKS = '[{"kind": "queue", "name": "celery", "routing_key": "celery"}]'
EVENTS = (
    '[{"kind": "queue", "name": "audit", "routing_key": "order",'
    ' "exchange": {"name": "events", "type": "topic"}}]'
)
#: What was sent has been finished, each once.
RECEIPTS: Final[LiteralString] = """
SELECT inbox.note_receipts(
    'w@host', array_agg(s.message_id), array_agg(s.task), array_agg('succeeded'::text),
    array_agg(NULL::text), array_agg(0::bigint), array_agg(NULL::float8), array_agg(0::float8))
FROM outbox.sent s WHERE NOT EXISTS (
    SELECT FROM inbox.receipt r WHERE r.message_id = s.message_id)
HAVING count(*) > 0
"""

#: What has no number while nothing is paused, and where the broker is no Redis.
NOT_HERE = {"outbox_paused_messages", "outbox_broker_memory_ratio"}

Load = Callable[[], None]


@pytest.fixture
def load(database: str) -> Load:
    """Commit some messages of each kind: tasks, events, for later, unroutable.

    A worker leaves receipts of what was sent, and knows no task of what waits.
    """
    with psycopg.connect(database) as connection:
        connection.execute("SELECT inbox.watch(ARRAY['shop.bill'])")
        connection.execute(
            "SELECT inbox.announce('w@host', json_build_object("
            "'queues', ARRAY['celery'], 'tasks', ARRAY['shop.other']), 3600)"
        )

    def commit() -> None:
        commit_rows(database, 20, declare=TASKS)
        commit_rows(database, 5, exchange="events", routing_key="order", declare=EVENTS)
        commit_rows(database, available_in=3600)
        commit_rows(database, routing_key="nowhere")
        with psycopg.connect(database) as connection:
            connection.execute(RECEIPTS)

    return commit


@pytest.fixture
def running(relay: RelayFactory, database: str, broker: Broker, load: Load) -> Relay:
    """A relay that has published, refused and given up messages."""
    load()
    running = relay(
        OUTBOX_DATABASE_URL=database,
        OUTBOX_BROKER_URL=broker.url,
        OUTBOX_MAX_ATTEMPTS="1",
    )
    wait_until(
        lambda: states(database) == {"pending": 0, "scheduled": 1, "sent": 25, "dead": 1},
        DEADLINE,
        "everything to be sent, or given up",
    )
    return running


def test_every_metric_asked_for_exists(running: Relay) -> None:
    """Under exactly that name; queues are looked at some seconds after the start."""
    asked = {name for _, expression, _ in queries() for name in metrics_in(expression)}
    for rule in alerts().values():
        asked |= metrics_in(rule)
    # These have no series while every task is known, and nothing is paused.
    asked -= {"outbox_unknown_task_messages", "outbox_paused_messages"}

    def shown() -> set[str]:
        return {line.split("{")[0].split(" ")[0] for line in running.metrics().splitlines()}

    wait_until(lambda: asked <= shown(), DEADLINE, f"all of {sorted(asked)}")


def test_the_metrics_are_as_prometheus_wants_them(running: Relay, promtool: Path) -> None:
    """Names, units and help texts pass its own lint."""
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=running.metrics(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_the_dashboard_brings_points(
    running: Relay, own_prometheus: OwnPrometheus, load: Load
) -> None:
    """Through a real Prometheus, with every label that its legend names."""
    prometheus = own_prometheus(running.address)
    missing = dict.fromkeys(each for each in queries() if not metrics_in(each[1]) & NOT_HERE)

    def all_answered() -> bool:
        load()
        for query in list(missing):
            _, expression, legend = query
            labels = set(re.findall(r"{{(\w+)}}", legend)) - {"outbox"}  # of many in one relay
            if shows(prometheus, expression, labels=labels):
                del missing[query]
        return not missing

    try:
        wait_until(all_answered, DEADLINE, "points for every query")
    except AssertionError as error:
        raise AssertionError("\n".join(" | ".join(query) for query in missing)) from error


def shows(prometheus: Prometheus, expression: str, labels: set[str]) -> bool:
    """Whether a query brings numbers, and among its series one with all the labels."""
    now = time()
    asked: dict[str, str | float] = {"query": expression, "start": now - 30, "end": now, "step": 1}
    series: list[Any] = prometheus.ask("query_range", asked)["result"]
    return any(
        labels <= set(each["metric"]) and any(value != "NaN" for _, value in each["values"])
        for each in series
    )
