"""An app for real workers that leave receipts; what it is, the environment says.

CHARGING_RELIABLE has it keep what it cannot run, and acknowledge late; CHARGING_TASKS are the tasks
it knows beside `shop.charge`; CHARGING_ACCEPT is what it can decode.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any
from uuid import uuid4

import psycopg
from celery import Celery

from celery_inbox import idempotent, receipts, reliable

DATABASE = os.environ.get("CHARGING_DATABASE", "dbname=none")
CHARGE, HELD = "shop.charge", "shop.held"
#: Times that a quorum queue delivers a message.
LIMIT = 2
#: Tasks that wait at the gate connect no more at a time once it is open.
SLOTS = BoundedSemaphore(8)

app = Celery("charging", broker=os.environ.get("CHARGING_BROKER"), set_as_current=False)
app.conf.broker_connection_retry_on_startup = True
app.conf.accept_content = os.environ.get("CHARGING_ACCEPT", "json").split(",")
if os.environ.get("CHARGING_RELIABLE"):
    app.conf.task_time_limit = 60
    reliable(app, delivery_limit=LIMIT)
if seconds := os.environ.get("CHARGING_VISIBILITY"):
    app.conf.task_acks_late = True
    app.conf.broker_transport_options = {
        "visibility_timeout": float(seconds),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }
receipts(app, DATABASE)


@contextmanager
def after_the_gate() -> Iterator[psycopg.Connection[Any]]:
    """A connection once the test has opened the gate; each task that came to it leaves a file."""
    gate = Path(os.environ["CHARGING_GATE"])
    (gate / uuid4().hex).touch()
    while not (gate / "open").exists():
        time.sleep(0.05)
    with SLOTS, psycopg.connect(DATABASE) as connection:
        yield connection


def charge(self: Any, connection: psycopg.Connection[Any]) -> None:
    """Have one effect."""
    connection.execute("INSERT INTO effect (note) VALUES (%s)", (self.request.id,))


for name in (CHARGE, *filter(None, os.environ.get("CHARGING_TASKS", "").split(","))):
    connect = after_the_gate if name == HELD else DATABASE
    app.task(name=name, bind=True)(idempotent(connect)(charge))
