"""Whether the relay stays as fast as it is: under a backlog, a held horizon, a heap of sent rows.

All against a broker that costs nothing, so that nothing hides what the database adds.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from bench.instruments.drain import Target, drain
from bench.instruments.run import Run
from bench.instruments.window import WINDOW
from bench.lab import Lab
from bench.load import messages
from bench.load.queues import STUB
from bench.programs.stub_broker import stub_brokers


def stub(lab: Lab, total: int, relays: int = 1) -> Run:
    """Drain so many messages, and there are no others."""
    messages.refill(lab, total, STUB)
    return _drain(lab, total, relays)


def head(lab: Lab, pending: int) -> Run:
    """Drain the first of so many pending messages.

    There is always a window more than is drained: the end, when the window empties, is not seen.
    """
    messages.refill(lab, max(pending, lab.scale.head + WINDOW), STUB)
    return _drain(lab, lab.scale.head)


def held_horizon(lab: Lab) -> Run:
    """Drain while a transaction that began before them still sees every row as it was."""
    messages.reset(lab)
    with psycopg.connect(lab.database_url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM outbox.ready")
        messages.fill(lab, lab.scale.horizon, STUB)
        messages.settle(lab)
        return _drain(lab, lab.scale.horizon)


def among_sent(lab: Lab) -> Run:
    """Drain while messages sent before lie in the same tables."""
    messages.reset(lab)
    messages.fill(lab, lab.scale.sent, STUB)
    messages.send_all(lab)
    messages.fill(lab, lab.scale.stub, STUB)
    messages.settle(lab)
    return _drain(lab, lab.scale.stub)


def written_ahead(lab: Lab) -> Run:
    """Drain with no checkpoint since the rows were written, which would add whole pages to WAL."""
    messages.reset(lab)
    messages.fill(lab, lab.scale.stub, STUB)
    return _drain(lab, lab.scale.stub)


def _drain(lab: Lab, total: int, relays: int = 1) -> Run:
    with _stub_target(relays) as target:
        return drain(lab, target, total)


@contextmanager
def _stub_target(relays: int) -> Iterator[Target]:
    with stub_brokers(relays) as found:
        urls, pids = zip(*found, strict=True)
        yield Target(urls, pids)
