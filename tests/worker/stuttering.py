"""An app for real workers, whose every message is published three times, as faults may do."""

import os
import signal
from collections.abc import Callable
from functools import cached_property
from typing import Any

import psycopg
from celery import Celery, chord
from celery.app.amqp import AMQP

from celery_inbox import idempotent

COPIES = 3
NOTE = "INSERT INTO effect (note) VALUES (%s)"


class Stutter(AMQP):
    """Publishes each message three times with the same id: by callers and by workers."""

    @cached_property
    def send_task_message(self) -> Callable[..., Any]:
        anyone: Any = super()
        send = anyone.send_task_message
        return lambda *args, **options: [send(*args, **options) for _ in range(COPIES)][-1]


app = Celery("stuttering", amqp=Stutter, set_as_current=False)
app.conf.update(
    broker_url=os.environ.get("LEDGER_BROKER"),
    result_backend=os.environ.get("LEDGER_RESULTS"),
    task_acks_late=True,
    task_reject_on_worker_lost=True,
)


def connect() -> psycopg.Connection[Any]:
    """A connection to the test's database."""
    return psycopg.connect(os.environ["LEDGER_DSN"])


@app.task(bind=True)
@idempotent(connect)
def add(self: Any, conn: Any, x: int, y: int) -> int:
    """Add, and note it."""
    conn.execute(NOTE, (f"{x}+{y}",))
    return x + y


@app.task(bind=True)
@idempotent(connect)
def total(self: Any, conn: Any, numbers: list[int]) -> int:
    """The body of a chord."""
    conn.execute(NOTE, (f"sum of {sorted(numbers)}",))
    return sum(numbers)


@app.task(bind=True)
@idempotent(connect)
def note_of(self: Any, conn: Any, result: str) -> None:
    """Note what its parent returned."""
    conn.execute(NOTE, (f"note of {result}",))


@app.task(bind=True)
@idempotent(connect)
def mourn(self: Any, conn: Any, failed: str) -> None:
    """An errback, as of old: it is sent as a message of its own."""
    conn.execute(NOTE, ("mourned",))


@app.task(bind=True)
@idempotent(connect)
def fail(self: Any, conn: Any) -> None:
    """Fail at every delivery."""
    raise LookupError("no such order")


@app.task(bind=True, max_retries=3)
@idempotent(connect)
def go_on(self: Any, conn: Any) -> None:
    """Send two retries beside runs that go on, and one that ends its run."""
    if self.request.retries < 2:
        self.retry(countdown=0, throw=False)
    elif self.request.retries == 2:
        raise self.retry(countdown=0)
    conn.execute(NOTE, (f"attempt {self.request.retries}",))


@app.task(bind=True)
@idempotent(connect)
def third_time(self: Any, conn: Any) -> int:
    """Succeed at the third attempt."""
    conn.execute(NOTE, (f"attempt {self.request.retries}",))
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(bind=True)
@idempotent(connect)
def countdown(self: Any, conn: Any, rest: int) -> str:
    """Replace itself until nothing is left, first by a chain that ends in itself."""
    conn.execute(NOTE, (f"rest {rest}",))
    if rest == 3:
        raise self.replace(add.s(0, 2) | countdown.s())
    if rest:
        raise self.replace(countdown.s(rest - 1))
    return "go"


@app.task(bind=True)
@idempotent(connect)
def gather(self: Any, conn: Any, numbers: list[int] | None = None) -> int:
    """Replace itself by a chord whose body is itself."""
    conn.execute(NOTE, (f"gather {numbers and sorted(numbers)}",))
    if numbers is None:
        raise self.replace(chord([add.s(1, 1), add.s(2, 2)], gather.s()))
    return sum(numbers)


@app.task(bind=True)
@idempotent(connect)
def dies_once(self: Any, conn: Any) -> str:
    """Kill the process that runs it, the first time, after its effect."""
    conn.execute(NOTE, ("survived",))
    with psycopg.connect(os.environ["LEDGER_DSN"]) as witness:
        first = witness.execute(
            "INSERT INTO died SELECT 1 WHERE NOT EXISTS (SELECT FROM died)"
        ).rowcount
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@app.task(bind=True)
@idempotent(connect, wait=0.2)
def patient(self: Any, conn: Any) -> str:
    """Run until a row allows it to end, while its duplicates come back again and again."""
    conn.execute(NOTE, ("patient",))
    conn.execute("SELECT pg_advisory_lock_shared(1)")
    return "done"
