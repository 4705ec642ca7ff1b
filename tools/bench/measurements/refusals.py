"""What ordinary messages notice of others that nobody takes, and what these cost in the long run.

At a steady rate, first with nothing beside them, then with all of `trouble`: the time from commit
to settled, what Postgres writes ahead, lines that the relay logs, and channels that the broker
closes. The first refusals cost the most, and are included.
"""

import random
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep, time
from typing import Final

import psycopg

from bench.instruments.drain import running
from bench.instruments.latencies import spread
from bench.instruments.postgres import position, wal_since
from bench.instruments.stored import settled_at
from bench.lab import Lab, Unbelievable
from bench.load import messages
from bench.load.tasks import ARGUMENTS, outbox_app
from bench.load.trouble import trouble
from bench.programs.relay import Relay
from servers import RabbitMQ

#: Ordinary messages a second.
RATE: Final = 50
QUEUE: Final = "ordinary"
#: For so many seconds before the clock starts: all is connected, prepared and declared.
WARM_UP: Final = 1.0
PATIENCE_SECONDS: Final = 30
CLOSED: Final = "caused a channel exception"


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Latencies in milliseconds, without and with trouble, and what it costs a minute."""
    seconds = lab.scale.refusals_seconds
    return {
        "without": _measured(lab, seconds / 4, backlog=0),
        "beside": _measured(lab, seconds, backlog=lab.scale.refused),
    }


def _measured(lab: Lab, seconds: float, backlog: int) -> dict[str, float]:
    """So many seconds of ordinary messages; `backlog` is what waits for each bad route."""
    node = lab.require_rabbitmq()
    vhost = node.create_vhost()
    messages.reset(lab)
    try:
        with running(lab, node.url(vhost)) as relay, ExitStack() as stack:
            _settled(lab, set(_produce(lab, WARM_UP)))
            if backlog:
                stack.enter_context(trouble(lab, node, vhost, backlog))
            costs = _Costs(lab, relay, node)
            committed = _produce(lab, seconds)
            spent = costs.spent()
            settled = _settled(lab, set(committed))
    finally:
        node.delete_vhost(vhost)
    return {**spread(settled[id_] - at for id_, at in committed.items()), **spent}


class _Costs:
    """Meters, read when it is made and when they are asked for."""

    def __init__(self, lab: Lab, relay: Relay, node: RabbitMQ) -> None:
        self._lab, self._relay, self._log = lab, relay.log, node.folder / "log" / "node.log"
        self._began = monotonic()
        self._before = position(lab), _count(self._relay, "\n"), _count(self._log, CLOSED)

    def spent(self) -> dict[str, float]:
        """Kilobytes of WAL a second; lines and closed channels a minute."""
        seconds = monotonic() - self._began
        lsn, lines, closed = self._before
        return {
            "written": wal_since(self._lab, lsn) / 1000 / seconds,
            "lines": 60 * (_count(self._relay, "\n") - lines) / seconds,
            "channels": 60 * (_count(self._log, CLOSED) - closed) / seconds,
        }


def _count(log: Path, words: str) -> int:
    return log.read_text(errors="replace").count(words) if log.exists() else 0


def _produce(lab: Lab, seconds: float) -> dict[str, float]:
    """Commit tasks, one by one; when each was committed."""
    app, task = outbox_app(QUEUE)
    chance = random.Random(RATE)
    committed: dict[str, float] = {}
    with psycopg.connect(lab.database_url) as connection:
        following = began = monotonic()
        while following - began < seconds:
            sleep(max(0.0, following - monotonic()))
            with app.outbox.transaction(connection):
                id_ = str(task.delay(*ARGUMENTS.positional, **ARGUMENTS.named).id)
            committed[id_] = time()
            following += chance.expovariate(RATE)
    return committed


def _settled(lab: Lab, ids: set[str]) -> dict[str, float]:
    """When each was settled, once all are."""
    deadline = monotonic() + PATIENCE_SECONDS
    while True:
        settled = settled_at(lab)
        if missing := ids - settled.keys():
            if monotonic() > deadline:
                raise Unbelievable(f"{len(missing)} ordinary messages were not settled")
            sleep(0.5)
        else:
            return settled
