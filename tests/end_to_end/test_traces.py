"""One trace from the request to the worker, through a relay that is killed, and a replay."""

import os
import subprocess
import sys
from collections.abc import Callable

import psycopg
import pytest

from tests.fixtures.broker import Broker, frozen_queue
from tests.fixtures.otlp import Collector, Seen
from tests.fixtures.programs import CHECKOUT, Relay, RelayFactory, WorkerFactory
from tests.fixtures.rows import states
from tests.fixtures.waiting import wait_until

SECONDS = 60.0
#: Another propagator's header, which a request may carry as well.
SENTRY = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"
Request = Callable[[], tuple[str, str]]


@pytest.fixture
def request_(database: str, collector: Collector) -> Request:
    """Serve a request in a program of its own; returns the ids of its trace and of its task."""

    def send() -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.end_to_end.traced", database, SENTRY],
            cwd=CHECKOUT,
            env={**os.environ, **collector.environment(), "OTEL_SERVICE_NAME": "shop"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        trace_id, task_id = done.stdout.split()
        return trace_id, task_id

    return send


@pytest.mark.timeout(240)
def test_one_trace_through_a_kill_and_a_replay(
    request_: Request,
    database: str,
    broker: Broker,
    collector: Collector,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
) -> None:
    """Nothing in it begins a trace of its own, and everything hangs on the span that sent."""

    def start() -> Relay:
        return relay(
            OUTBOX_DATABASE_URL=database,
            OUTBOX_BROKER_URL=broker.url,
            OUTBOX_TRACING="on",
            OUTBOX_LEASE="1s",
            **collector.environment(),
        )

    broker.declare("mail")
    trace_id, task_id = request_()
    with frozen_queue(broker, "mail"):  # published, and never confirmed
        first = start()
        wait_until(lambda: "in_flight_messages 1.0" in first.metrics(), SECONDS, "one in flight")
        first.kill()
    start()
    celery_worker(
        "tests.end_to_end.traced",
        TRACED_BROKER_URL=broker.url,
        OTEL_SERVICE_NAME="worker",
        **collector.environment(),
    )
    collector.wait_for("run/bill")
    wait_until(lambda: states(database)["sent"] == 1, SECONDS, "the receipt")
    runs = len(collector.named("run/bill"))
    with psycopg.connect(database) as connection:
        connection.execute("SELECT pg_sleep(0.3), outbox.replay_message(%s)", (task_id,))
    _, replayed = collector.wait_for("publish mail", 2)
    collector.wait_for("run/bill", runs + 1)

    found = [span for span in collector.seen if not span.name.startswith("publish batch")]
    assert {span.trace_id for span in found} == {trace_id}
    assert {span.service for span in found} == {"shop", "outbox-relay", "worker"}
    (sender,) = collector.named("apply_async/bill")
    for name in ("wait in outbox", "publish mail", "run/bill"):
        assert {span.parent_id for span in collector.named(name)} == {sender.span_id}
    assert list(replayed.events) == ["outbox.replayed"]
    charged = collector.named("charge the card")
    assert {span.attributes["sentry-trace"] for span in charged} == {SENTRY}
    _in_turn(*collector.named("POST /orders"), *collector.named("wait in outbox"))


def _in_turn(request: Seen, wait: Seen) -> None:
    """The wait begins within the request, with its row, and outlasts the relay that was killed."""
    assert request.span.start_time_unix_nano < wait.span.start_time_unix_nano
    assert wait.seconds > 1
