"""Tasks for workers that are killed: each leaves its message's id, in the inbox's transaction.

`celery -A tests.faults.victims worker`: configured by the environment alone.
"""

import os
import signal
from time import sleep
from typing import Any

import psycopg
from celery import Celery

from celery_inbox import idempotent, reliable

#: Deliveries of a message that keeps killing its worker.
LIMIT = 3

app = Celery("victims", broker=os.environ.get("VICTIMS_BROKER", "amqp://"), set_as_current=False)
app.conf.update(task_ignore_result=True, task_time_limit=60)
reliable(app, delivery_limit=LIMIT)


class ChangeOfMind(Exception):
    """Rolls a run back."""


def connect() -> psycopg.Connection[Any]:
    """A connection to the test's database."""
    return psycopg.connect(os.environ["VICTIMS_DATABASE"])


@app.task(bind=True)
@idempotent(connect)
def effect(self: Any, conn: Any, seconds: float, fails_first: bool) -> None:
    """Leave the id, take some time, and perhaps fail the first time."""
    conn.execute("INSERT INTO effect VALUES (%s)", (self.request.id,))
    sleep(seconds)
    if fails_first and _is_first(self.request.id):
        raise ChangeOfMind


@app.task
def die() -> None:
    """Take the process along, whenever it is delivered."""
    os.kill(os.getpid(), signal.SIGKILL)


def _is_first(id_: str) -> bool:
    """Whether nobody has asked about this id before; remembered whatever becomes of the run."""
    with psycopg.connect(os.environ["VICTIMS_DATABASE"]) as connection:
        noted = connection.execute(
            "INSERT INTO tried VALUES (%s) ON CONFLICT DO NOTHING RETURNING 1", (id_,)
        )
        return noted.fetchone() is not None
