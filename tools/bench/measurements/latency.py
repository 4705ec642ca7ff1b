"""From commit to confirm at a steady rate, with a consumer attached; and what an idle relay costs.

A producer commits one task per transaction at random moments and notes when each commit returned.
Two moments are known of each message afterwards:

- *settled*: the receipt by which the relay recorded the confirm, a statement or so later than the
  confirm itself. Commit to settled is therefore an upper bound of commit to confirm.
- *received*: when the consumer had it, which on RabbitMQ may be before the confirm.
"""

import random
from collections.abc import Mapping
from time import monotonic, sleep, time
from typing import Final

import psycopg

from bench.instruments import stored
from bench.instruments.drain import running
from bench.instruments.latencies import percentiles
from bench.instruments.shares import shares
from bench.lab import Lab
from bench.load import messages, queues
from bench.load.queues import Route
from bench.load.tasks import ARGUMENTS, outbox_app
from bench.programs.consumer import Consumer

#: Sent before the clock starts, so that everything is connected, prepared and declared.
WARM_UP: Final = 20


def measure(
    lab: Lab, rate: int, doorbell: str, fence: str = "off"
) -> Mapping[str, Mapping[str, float]]:
    """Latencies at so many messages a second, in milliseconds.

    `doorbell` and `fence` as OUTBOX_DOORBELL and OUTBOX_FENCE.
    """
    url = lab.require_rabbitmq().url()
    routes = queues.fresh(url)
    messages.reset(lab)
    with running(lab, url, OUTBOX_DOORBELL=doorbell, OUTBOX_FENCE=fence):
        consumer = Consumer(url, routes[0].queue)
        try:
            committed = _produce(lab, routes[0], rate, lab.scale.latency_seconds)
            arrivals = consumer.arrivals()
        finally:
            consumer.kill()
    settled = stored.settled_at(lab)
    queues.delete(url, routes)
    return {
        "commit to settled": percentiles(settled[id_] - at for id_, at in committed.items()),
        "commit to received": percentiles(arrivals[id_] - at for id_, at in committed.items()),
    }


def idle(lab: Lab, doorbell: str) -> Mapping[str, Mapping[str, float]]:
    """What a relay costs after a minute without work: shares of a core, transactions a second."""
    url = lab.require_rabbitmq().url()
    routes = queues.fresh(url)
    messages.reset(lab)
    with running(lab, url, OUTBOX_DOORBELL=doorbell) as relay:
        _produce(lab, routes[0], rate=100, seconds=0)
        sleep(lab.scale.idle_rest_seconds)
        found = shares(lab, [relay.pid], lab.scale.idle_seconds)
    queues.delete(url, routes)
    return found


def _produce(lab: Lab, route: Route, rate: int, seconds: float) -> dict[str, float]:
    """Commit tasks, one by one, and wait for the last to be settled; when each was committed."""
    app, task = outbox_app(route.queue)
    chance = random.Random(rate)
    committed: dict[str, float] = {}
    with psycopg.connect(lab.database_url) as connection:

        def send() -> str:
            with app.outbox.transaction(connection):
                return str(task.delay(*ARGUMENTS.positional, **ARGUMENTS.named).id)

        for _ in range(WARM_UP):
            send()
        stored.await_settled(lab, WARM_UP)
        following = began = monotonic()
        while following - began < seconds:
            sleep(max(0.0, following - monotonic()))
            id_ = send()
            committed[id_] = time()
            following += chance.expovariate(rate)
    stored.await_settled(lab, WARM_UP + len(committed))
    return committed
