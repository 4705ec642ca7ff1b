"""A worker whose tasks wait for one another: only a pool that runs them side by side gets on."""

import os
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_inbox import idempotent, reliable
from celery_outbox import OutboxCelery
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.rows import states
from tests.fixtures.waiting import wait_until

Meeting = Callable[..., None]

SECONDS = 60
#: How many meet, and how often each looks for the others, a tenth of a second apart.
TASKS, LOOKS = 5, 300

app = OutboxCelery("shop", broker=os.environ.get("BROKER_URL"), set_as_current=False)
app.conf.task_time_limit = 60
reliable(app, quorum=False)


def connect() -> psycopg.Connection[Any]:
    """Open what a task works on."""
    return psycopg.connect(os.environ["OUTBOX_DATABASE_URL"])


@app.task(bind=True, name="shop.meet")
@idempotent(connect)
def meet(self: Any, conn: Any, number: int) -> None:
    """Come, wait until all have come, and send the next task in the same transaction."""
    with psycopg.connect(os.environ["OUTBOX_DATABASE_URL"], autocommit=True) as open_book:
        open_book.execute("INSERT INTO guest VALUES (%s)", (number,))
        for _ in range(LOOKS):
            row = open_book.execute("SELECT count(*), pg_sleep(0.1) FROM guest").fetchone()
            if row and row[0] >= TASKS:
                break
        else:
            raise TimeoutError("the others did not come: the pool runs one after another")
    conn.execute("INSERT INTO effect VALUES (%s)", (f"met {number}",))
    leave.delay(number)


@app.task(name="shop.leave")
def leave(number: int) -> None:
    """Write that down."""
    with connect() as conn:
        conn.execute("INSERT INTO effect VALUES (%s)", (f"left {number}",))


@pytest.fixture(params=["valkey_url", "broker_url"])
def meeting(
    request: pytest.FixtureRequest,
    database: str,
    effects: Callable[[], list[str]],
    relay: RelayFactory,
    celery_worker: WorkerFactory,
) -> Meeting:
    """Have tasks meet on a pool: each has its effect once, and what it sends comes."""
    broker_url = request.getfixturevalue(request.param)

    def meet_on(pool: str, **environment: str) -> None:
        with psycopg.connect(database) as connection:
            connection.execute("CREATE TABLE guest (number int)")
        relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker_url)
        celery_worker(
            "tests.ecosystem.pools", f"--pool={pool}", f"--concurrency={2 * TASKS}",
            OUTBOX_DATABASE_URL=database, BROKER_URL=broker_url, **environment,
        )  # fmt: skip
        with psycopg.connect(database) as connection, app.outbox.using(connection):
            for number in range(TASKS):
                meet.delay(number)
        expected = sorted(f"{what} {n}" for what in ("met", "left") for n in range(TASKS))
        wait_until(lambda: effects() == expected, SECONDS, "what they did")
        wait_until(lambda: states(database)["sent"] == 2 * TASKS, SECONDS, "all sent")

    return meet_on
