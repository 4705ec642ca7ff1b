"""What the inbox costs a task: `@idempotent` against the same task on a plain pooled transaction.

The task writes one row. Deliveries are traced as in a worker's process, without a broker, which
would hide the difference; the ways take turns, a portion each.
"""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final
from uuid import uuid4

import psycopg
from celery import Celery
from celery.app.trace import build_tracer
from psycopg_pool import ConnectionPool

from bench.lab import Lab
from celery_inbox import idempotent

#: Deliveries of one way before it is the next one's turn.
PORTION: Final = 50

TABLE: Final = "CREATE TABLE IF NOT EXISTS inbox_bench (note text)"
WRITE: Final = "INSERT INTO inbox_bench (note) VALUES (%s)"

Deliver = Callable[[], None]


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Deliver by each way in turns; tasks a second by way."""
    url = lab.database_url
    lab.admin.execute(TABLE)
    with (
        Celery("inbox", broker="memory://", set_as_current=False) as app,
        ConnectionPool(url, min_size=1, max_size=1) as pool,
    ):
        app.conf.task_ignore_result = True
        ways = _ways(app, url, pool)
        for deliver in ways.values():
            for _ in range(PORTION):
                deliver()  # warms plans and caches
        seconds = dict.fromkeys(ways, 0.0)
        turns = max(1, 2 * lab.scale.transactions)
        for _ in range(turns):
            for name, deliver in ways.items():
                began = perf_counter()
                for _ in range(PORTION):
                    deliver()
                seconds[name] += perf_counter() - began
    return {name: {"rate": turns * PORTION / spent} for name, spent in seconds.items()}


def _ways(app: Celery, url: str, pool: Any) -> dict[str, Deliver]:
    def pooled(self: Any) -> None:
        with pool.connection() as connection:
            connection.execute(WRITE, (self.request.id,))

    def connecting(self: Any) -> None:
        with psycopg.connect(url) as connection:
            connection.execute(WRITE, (self.request.id,))

    def once(self: Any, connection: Any) -> None:
        connection.execute(WRITE, (self.request.id,))

    bodies: dict[str, Callable[..., None]] = {
        "plain, on a pool": pooled,
        "@idempotent, a URL": idempotent(url)(once),
        "@idempotent, a pool": idempotent(pool)(once),
        "plain, connecting": connecting,
        "@idempotent, connecting": idempotent(lambda: psycopg.connect(url))(once),
    }
    return {name: _delivering(app, name, body) for name, body in bodies.items()}


def _delivering(app: Celery, name: str, body: Callable[..., None]) -> Deliver:
    task: Any = app.task(bind=True, name=name, shared=False)(body)
    app.finalize()
    trace = build_tracer(name, task, app=app)

    def deliver() -> None:
        id = str(uuid4())
        ending = trace(id, [], {}, {"id": id, "is_eager": False, "called_directly": False})
        if ending.info is not None:
            raise ending.info.retval

    return deliver
