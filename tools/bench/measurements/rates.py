"""Limits of rates over a minute: what is sent of a backlog, and what a limit costs.

The clock starts once the burst has gone and the rest is set aside. What is sent in a minute is
counted by the receipts and by the database's clock. `number` is how many messages were settled in
the fullest second, wherever it begins: one that is settled a little late counts with the next.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Final

from bench.instruments.drain import running
from bench.instruments.postgres import now
from bench.instruments.shares import shares
from bench.lab import Lab, Unbelievable
from bench.load import messages, queues

PER_SECOND: Final = (5, 50, 500)
PATIENCE_SECONDS: Final = 120
POLL_SECONDS: Final = 0.5
#: More than are sent until the end: so many seconds' worth, besides those measured.
SPARE_SECONDS: Final = 60
INSERT: Final = """
INSERT INTO outbox.message (message_id, task, routing_key, headers, properties, body, content_type,
                            content_encoding)
SELECT gen_random_uuid()::text, %(task)s::text, %(queue)s::text,
       json_build_object('lang', 'py', 'task', %(task)s::text), '{"delivery_mode": 2}'::json,
       convert_to('[[' || n || '], {}, {}]', 'UTF8'), 'application/json', 'utf-8'
FROM generate_series(1, %(count)s::int) n
"""
ASIDE: Final = "SELECT NOT EXISTS (SELECT FROM outbox.ready WHERE claim_id IS NULL)"
SENT: Final = """
SELECT m.task, count(*) FROM outbox.receipt r CROSS JOIN unnest(r.ids) AS settled (id)
JOIN outbox.message m ON m.id = settled.id GROUP BY m.task
"""
#: By task: how many within these times, and how many in the fullest second.
WITHIN: Final = """
SELECT task, count(*), max(second) FROM (
    SELECT m.task, count(*) OVER (PARTITION BY m.task ORDER BY r.sent_at
                                  RANGE BETWEEN CURRENT ROW AND '1 second' FOLLOWING) AS second
    FROM outbox.receipt r CROSS JOIN unnest(r.ids) AS settled (id)
    JOIN outbox.message m ON m.id = settled.id
    WHERE r.sent_at BETWEEN %(since)s AND %(since)s + make_interval(secs => %(seconds)s)
) sent GROUP BY task
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a queue or of a task, whose messages have both to themselves."""

    per_second: int
    burst: int | None = None
    of: str = "queue"

    @property
    def name(self) -> str:
        """`50/s`, `50/s, burst 1`, `50/s of a task, burst 1`."""
        of = " of a task" if self.of == "task" else ""
        return f"{self.per_second}/s{of}" + (f", burst {self.burst}" if self.burst else "")

    @property
    def most(self) -> int:
        """How many may go at once."""
        return self.burst or self.per_second


EACH: Final = [Limit(rate, burst) for rate in PER_SECOND for burst in (None, 1)]
TOGETHER: Final = [*EACH, *(Limit(rate, 1, "task") for rate in PER_SECOND)]


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Each limit alone, and what it costs; then all of them together, by one relay and by two."""
    url = lab.require_rabbitmq().url()
    found: dict[str, Mapping[str, float]] = {}
    for limit in EACH:
        alone = _minute(lab, [url], [limit])
        found |= {
            name if name == limit.name else f"{limit.name}, {name}": v for name, v in alone.items()
        }
    for relays in (1, 2):
        found |= _together(lab, [url] * relays, f"{relays} relay{'s' if relays > 1 else ''}")
    if lab.valkey is not None:
        found |= _together(lab, [lab.valkey.url], "Redis")
    return found


def _together(lab: Lab, urls: Sequence[str], name: str) -> dict[str, Mapping[str, float]]:
    values = _minute(lab, urls, TOGETHER)
    return {f"all together, {name}, {what}": each for what, each in values.items()}


def _minute(lab: Lab, urls: Sequence[str], limits: Sequence[Limit]) -> dict[str, dict[str, float]]:
    """What is sent of each, and what that costs all of them."""
    messages.reset(lab)
    names = [f"rated-{number}" for number in range(len(limits))]
    seconds = lab.scale.rated_seconds
    for name, limit in zip(names, limits, strict=True):
        count = limit.most + limit.per_second * (round(seconds) + SPARE_SECONDS)
        lab.admin.execute(INSERT, {"task": name, "queue": name, "count": count})
        call = f"SELECT outbox.set_rate(%s, %s, {limit.of} => %s)"
        lab.admin.execute(call.encode(), (limit.per_second, limit.burst, name))
    with ExitStack() as stack:
        stack.callback(lab.admin.execute, "DELETE FROM outbox.bucket")
        if urls[0].startswith("amqp"):
            routes = [queues.Route(name) for name in names]
            stack.callback(queues.delete, urls[0], routes)
            queues.declare(urls[0], routes)
        relays = [stack.enter_context(running(lab, url)) for url in urls]
        _await_the_burst(lab, names, limits)
        sent, costs = _watched(lab, [relay.pid for relay in relays], seconds)
    found: dict[str, dict[str, float]] = {}
    for name, limit in zip(names, limits, strict=True):
        count, most = sent.get(name, (0, 0))
        rate = count / seconds
        deviation = 100 * abs(rate / limit.per_second - 1)
        found[limit.name] = {"rate": rate, "deviation": deviation, "number": float(most)}
    return found | costs


def _await_the_burst(lab: Lab, names: Sequence[str], limits: Sequence[Limit]) -> None:
    """Until all that cannot go is set aside, and what may go at once has gone."""
    deadline = monotonic() + PATIENCE_SECONDS
    wanted = {n: each.most + each.per_second for n, each in zip(names, limits, strict=True)}
    while True:
        sent: dict[str, int] = dict(lab.admin.execute(SENT).fetchall())
        if all(sent.get(n, 0) >= most for n, most in wanted.items()) and lab.value(ASIDE):
            return
        if monotonic() > deadline:
            raise Unbelievable(f"the bursts have not gone: {sent}")
        sleep(POLL_SECONDS)


def _watched(
    lab: Lab, pids: Sequence[int], seconds: float
) -> tuple[dict[str, tuple[int, int]], dict[str, dict[str, float]]]:
    """What is sent in so many seconds, by task, and what that costs."""
    since = now(lab)
    costs = shares(lab, pids, seconds)
    rows = lab.admin.execute(WITHIN, {"since": since, "seconds": seconds})
    return {task: (count, most) for task, count, most in rows.fetchall()}, costs
