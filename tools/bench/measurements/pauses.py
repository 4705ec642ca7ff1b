"""One of three routes is paused while messages of all three come: what the other two notice of it.

Each route has a queue and a thousand messages a second, committed a portion at a time by a
producer on this machine; those of the paused one have ordering keys. Times are the database's: from
a message's insertion to the receipt that settles it, which is a little later than its confirm.
"""

import re
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any, Final

import psycopg
from kombu import Connection

from bench.instruments.drain import running
from bench.instruments.postgres import now
from bench.lab import Lab, Unbelievable
from bench.load import messages, queues
from bench.load.queues import Route

RATE: Final = 1_000
TICK_SECONDS: Final = 0.02
KEYS: Final = 50
PATIENCE_SECONDS: Final = 120
SILENCE_SECONDS: Final = 5.0
#: A tick's messages of each route; the first route's have keys, in turn.
INSERT: Final = """
INSERT INTO outbox.message (message_id, task, routing_key, headers, properties, body, content_type,
                            content_encoding, ordering_key)
SELECT gen_random_uuid()::text, 'shop.mail', queue, '{"lang": "py", "task": "shop.mail"}'::json,
       '{"delivery_mode": 2}'::json, convert_to('[[' || n || '], {}, {}]', 'UTF8'),
       'application/json', 'utf-8', CASE WHEN place = 1 THEN 'key-' || n %% %(keys)s END
FROM generate_series(%(first)s::int, %(last)s::int) n,
     unnest(%(queues)s::text[]) WITH ORDINALITY AS to_queue (queue, place)
"""
#: Of the routes that are not paused, what was inserted within these times.
SETTLED: Final = """
SELECT count(*), count(*) FILTER (WHERE r.sent_at < %(until)s),
       1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY took),
       1000 * percentile_cont(0.99) WITHIN GROUP (ORDER BY took)
FROM outbox.receipt r CROSS JOIN unnest(r.ids) AS settled (id)
JOIN outbox.message m ON m.id = settled.id,
LATERAL (SELECT extract(epoch FROM r.sent_at - m.created_at)::float8 AS took) t
WHERE m.routing_key = ANY (%(queues)s) AND m.created_at BETWEEN %(since)s AND %(until)s
"""
LEFT: Final = """
SELECT (SELECT count(*) FROM outbox.ready) + (SELECT count(*) FROM outbox.lane)
     + (SELECT count(*) FROM outbox.parked)
"""
NUMBER: Final = re.compile(rb"\[\[(\d+)")


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Rate and latency of the others before the pause and within it, and how it is worked off."""
    url = lab.require_rabbitmq().url()
    routes = queues.fresh(url, count=3)
    names = [route.queue for route in routes]
    messages.reset(lab)
    lab.admin.execute("TRUNCATE outbox.lane, outbox.lane_news")
    producer = _Producer(lab, names)
    with running(lab, url):
        producer.run(2.0)
        before = _others(lab, producer, names)
        lab.admin.execute("SELECT outbox.pause(queue => %s)", (names[0],))
        producer.run(2.0)  # relays know within two seconds
        within = _others(lab, producer, names)
        waiting = int(lab.value(LEFT))
        lab.admin.execute("SELECT outbox.resume(queue => %s)", (names[0],))
        began = monotonic()
        while lab.value(LEFT):
            if monotonic() - began > PATIENCE_SECONDS:
                raise Unbelievable(f"{lab.value(LEFT)} of {waiting} messages are left")
            sleep(TICK_SECONDS)
        seconds = monotonic() - began
    _check_order(url, routes[0], producer.sent)
    queues.delete(url, routes)
    return {
        "others before it": before,
        "others within it": within,
        "resumed": {"rate": waiting / seconds},
    }


def _others(lab: Lab, producer: "_Producer", names: list[str]) -> dict[str, float]:
    """What the routes that are not paused had while all three sent."""
    since = now(lab)
    seconds = producer.run(lab.scale.latency_seconds)
    until = now(lab)
    deadline = monotonic() + PATIENCE_SECONDS
    asked = {"queues": names[1:], "since": since, "until": until}
    sent = len(names[1:]) * producer.portions
    while True:
        found = lab.admin.execute(SETTLED, asked).fetchall()[0]
        if found[0] >= sent:
            return {"rate": found[1] / seconds, "p50": found[2], "p99": found[3]}
        if monotonic() > deadline:
            raise Unbelievable(f"{sent} messages sent, {found[0]} settled")
        sleep(TICK_SECONDS)


class _Producer:
    """Commits a portion of every route at each tick."""

    def __init__(self, lab: Lab, names: list[str]) -> None:
        self._lab, self._names = lab, names
        self.sent = 0  # of each route
        self.portions = 0  # of them, by the last run

    def run(self, seconds: float) -> float:
        """At the rate, for so many seconds; how many it took."""
        portion = round(RATE * TICK_SECONDS)
        before = self.sent
        with psycopg.connect(self._lab.database_url, autocommit=True) as connection:
            following = began = monotonic()
            while following - began < seconds:
                sleep(max(0.0, following - monotonic()))
                connection.execute(
                    INSERT.encode(),
                    {
                        "queues": self._names,
                        "keys": KEYS,
                        "first": self.sent + 1,
                        "last": self.sent + portion,
                    },
                )
                self.sent += portion
                following += TICK_SECONDS
        self.portions = self.sent - before
        return monotonic() - began


def _check_order(url: str, route: Route, expected: int) -> None:
    """Every message of the route that was paused is there, each key in its order."""
    arrived: list[int] = []

    def receive(message: Any) -> None:
        found = NUMBER.match(
            message.body if isinstance(message.body, bytes) else message.body.encode()
        )
        if found is None:
            raise Unbelievable(f"a body that nobody sent: {message.body!r}")
        arrived.append(int(found[1]))

    with Connection(url) as connection:
        channel: Any = connection.default_channel
        channel.basic_consume(route.queue, no_ack=True, callback=receive)
        while len(arrived) < expected:
            try:
                connection.drain_events(timeout=SILENCE_SECONDS)
            except TimeoutError as error:
                raise Unbelievable(f"{len(arrived)} of {expected} have arrived") from error
    latest: dict[int, int] = {}
    for number in arrived:
        if number < latest.get(number % KEYS, 0):
            raise Unbelievable(f"message {number} has arrived after a later one of its key")
        latest[number % KEYS] = number
