"""`bench`: what this database, this broker and this machine do together, in a queue of its own.

Drain rate, and the time from insert to confirm of single messages. Needs the outbox to itself,
leaves nothing behind, and the history alone. `make bench` in the project's repository compares with
limits and peers.
"""

import json
import secrets
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import quantiles
from time import monotonic
from typing import Any, Final

import kombu

from outbox_relay.broker.registry import publisher_factory
from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import BROKER, DATABASE
from outbox_relay.cli.output import print_json
from outbox_relay.cli.values import limit
from outbox_relay.core.message import Message, Outcomes
from outbox_relay.core.thread import ContextThread
from outbox_relay.loop.relay import Relay
from outbox_relay.observe import logs
from outbox_relay.observe.health import Health
from outbox_relay.observe.metrics import Metrics
from outbox_relay.operator.session import Session
from outbox_relay.operator.status import RELAYS, RelaySeen
from outbox_relay.postgres.store import Store
from outbox_relay.settings import Settings
from outbox_relay.settings.table import BATCH_SIZE, WINDOW

#: How the names of the queues of measurements begin.
QUEUES: Final = "outbox-bench-"
#: Single messages whose latency is taken, and the pause between two of them, in seconds.
SINGLES: Final = 100
PAUSE: Final = 0.02
#: Longest wait for all confirms, in seconds.
PATIENCE: Final = 60.0

#: Messages as Celery writes them, only smaller.
INSERT: Final = """
WITH made AS (
INSERT INTO {outbox}.message (message_id, task, routing_key, headers, properties, body,
                              content_type, content_encoding, declare)
SELECT u, 'outbox.bench', %(queue)s,
       json_build_object('lang', 'py', 'task', 'outbox.bench', 'id', u, 'root_id', u,
                         'retries', 0, 'eta', NULL, 'argsrepr', '(1, 2)', 'kwargsrepr', '{{}}'),
       json_build_object('delivery_mode', 2, 'correlation_id', u),
       convert_to('[[1, 2], {{}}, {{}}]', 'UTF8'), 'application/json', 'utf-8', %(declare)s
FROM (SELECT gen_random_uuid()::text AS u FROM generate_series(1, %(messages)s)) fresh
RETURNING 1
) SELECT count(*) FROM made
"""


def command() -> Command:
    """The command."""
    return Command(
        "bench",
        "measure drain rate and latency here",
        _bench,
        _arguments,
        (*DATABASE, *BROKER, BATCH_SIZE, WINDOW),
        need_broker=True,
    )


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--messages", type=limit, default=20_000, help="how many to drain (20000)")
    parser.add_argument("--json", action="store_true", help="for programs")


class _Stopwatch(Metrics):
    """Metrics that keep every single latency, and when the last confirm came."""

    def __init__(self) -> None:
        super().__init__()
        self.latencies: list[float] = []
        self.last = 0.0

    def count_outcomes(self, outcomes: Outcomes) -> None:
        """Note each confirmed message's age."""
        now = monotonic()
        self.latencies += [now - message.born for message in outcomes.confirmed]
        if outcomes.confirmed:
            self.last = now
        super().count_outcomes(outcomes)


class _Store(Store):
    """Forgets the messages of the measurement as they are confirmed, and nothing else."""

    def forget(self, messages: Sequence[Message]) -> None:
        """Delete the messages of the measurement, and none that others have sent meanwhile."""
        if ours := [message for message in messages if message.routing_key.startswith(QUEUES)]:
            super().forget(ours)


def _bench(arguments: Namespace, settings: Settings) -> int:
    settings = replace(settings, retention=0.0)  # each is forgotten as it is confirmed
    logs.configure(settings.log_format, "error")
    with Session.open(settings) as session:
        if busy := _busy(session):
            print(f"bench needs the outbox to itself, and there are {busy}")
            return 1
        with _queue(settings) as queue:
            rate = _drain(settings, session, queue, arguments.messages)
            latencies = _latencies(settings, session, queue)
    cuts = quantiles(latencies, n=100)
    figures = {
        "messages": arguments.messages,
        "drain_per_second": round(rate),
        "latency_p50_ms": round(cuts[49] * 1000, 1),
        "latency_p99_ms": round(cuts[98] * 1000, 1),
    }
    if arguments.json:
        print_json(figures)
    else:
        print(f"drain:   {figures['drain_per_second']:,} messages/s ({arguments.messages:,})")
        print(f"latency: p50 {figures['latency_p50_ms']} ms, p99 {figures['latency_p99_ms']} ms")
    return 0


def _busy(session: Session) -> str:
    pending = session.value("SELECT pending + scheduled FROM {outbox}.stats")
    if pending:
        return f"{pending} messages to be sent"
    relays = len(session.fetch(RelaySeen, RELAYS))
    return f"{relays} relays at work" if relays else ""


@contextmanager
def _queue(settings: Settings) -> Iterator[str]:
    """A queue that is deleted in the end."""
    name = f"{QUEUES}{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        with kombu.Connection(settings.broker_url.read().split(";")[0]) as connection:
            channel: Any = connection.default_channel  # every transport's can delete a queue
            channel.queue_delete(name)


def _insert(session: Session, queue: str, messages: int) -> None:
    entity = {"kind": "queue", "name": queue, "routing_key": queue, "exchange": {"name": ""}}
    session.value(INSERT, queue=queue, messages=messages, declare=json.dumps([entity]))


def _relay(settings: Settings, stopwatch: Metrics) -> Relay:
    return Relay(
        settings,
        open_store=lambda: _Store.connect(
            settings.database_url.read(), settings.schema, settings.statement_timeout
        ),
        open_publisher=publisher_factory(settings),
        first_claim_id=secrets.randbits(31) << 32,
        metrics=stopwatch,
        health=Health(),
        # How long other messages are kept is not the measurement's to decide.
        tidy=lambda: (0, 0),
    )


def _drain(settings: Settings, session: Session, queue: str, messages: int) -> float:
    """Messages a second, from the start of the relay to the last confirm."""
    _insert(session, queue, messages)
    stopwatch = _Stopwatch()
    began = monotonic()
    _relay(settings, stopwatch).drain()
    return len(stopwatch.latencies) / (stopwatch.last - began)


def _latencies(settings: Settings, session: Session, queue: str) -> list[float]:
    """Seconds from insert to confirm, of single messages with a pause after each."""
    stopwatch = _Stopwatch()
    relay = _relay(settings, stopwatch)
    running = ContextThread(target=relay.run)
    running.start()
    try:
        pause = threading.Event()
        for _ in range(SINGLES):
            _insert(session, queue, 1)
            pause.wait(PAUSE)
        deadline = monotonic() + PATIENCE
        while len(stopwatch.latencies) < SINGLES and monotonic() < deadline:
            pause.wait(PAUSE)
    finally:
        relay.stop()
        running.join(PATIENCE)
    return stopwatch.latencies
