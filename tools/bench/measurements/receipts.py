"""What receipts cost a worker: the same real worker with and without them, in turns.

One solo worker on RabbitMQ empties a queue that was filled before it started. A turn takes five
seconds or longer; receipts are written every half second, so ten times or more.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from statistics import median
from time import monotonic, sleep
from typing import Final

from kombu import Connection, Queue

from bench.lab import Lab, Unbelievable
from bench.programs import working
from bench.programs.child import TOOLS

#: Turns of each way, in one round.
TURNS: Final = 5
#: The longest until all receipts are in their table.
PATIENCE_SECONDS: Final = 60
TABLE: Final = "CREATE TABLE IF NOT EXISTS working (note text)"
EMPTY: Final = "TRUNCATE working, inbox.receipt, inbox.watched, inbox.worker"

#: The tasks, by what they do, and how many of them take as long as so many no-ops.
TASKS: Final = {
    "a task with a transaction": (working.TRANSACTION, 1 / 5),
    "a no-op": (working.NOTHING, 1),
    "a task of 1 ms": (working.MILLISECOND, 1 / 8),
    "a task of 10 ms": (working.TEN_MILLISECONDS, 1 / 80),
}
#: The fewest that a worker can be warmed with.
FEWEST: Final = 20
WAYS: Final = {"without": "", "with receipts": "1"}


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Tasks a second, and the worker's CPU for one, by task and way: medians of the turns.

    Single turns can take ten times as long, with receipts or without, as where a disk is slow for
    a while: a sum over the turns would be about those alone.
    """
    lab.admin.execute(TABLE)
    turns: dict[str, list[dict[str, float]]] = {}
    for what, (task, share) in TASKS.items():
        total = max(FEWEST, int(lab.scale.worked * share))
        for _ in range(TURNS):
            for way, receipts in WAYS.items():
                lab.admin.execute(EMPTY)
                turns.setdefault(f"{what}, {way}", []).append(_turn(lab, task, total, receipts))
    lab.admin.execute(EMPTY)
    return {
        name: {
            "rate": median(turn["tasks"] / turn["seconds"] for turn in each),
            "sender": median(1e6 * turn["cpu"] / turn["tasks"] for turn in each),
        }
        for name, each in turns.items()
    }


def _turn(lab: Lab, task: str, total: int, receipts: str) -> dict[str, float]:
    """What a worker says that has emptied the queue."""
    url = lab.require_rabbitmq().url()
    _fill(url, task, total)
    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "-A", working.__name__, "worker", "--pool=solo"),
            *("--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        ],
        env={
            **os.environ,
            "PYTHONPATH": TOOLS,
            working.URL: url,
            working.DATABASE: lab.database_url,
            working.RECEIPTS: receipts,
            working.TASKS: str(total),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the bench, which then ends it
    )
    try:
        said = _said(worker)
        _await_receipts(lab, total if receipts else 0)
        return said
    finally:
        worker.kill()  # told to end, a solo worker without heartbeats does so ten seconds later
        worker.communicate()


def _await_receipts(lab: Lab, expected: int) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while (told := lab.value("SELECT count(*) FROM inbox.receipt")) != expected:
        if monotonic() > deadline:
            raise Unbelievable(f"{told} receipts of {expected} tasks")
        sleep(0.05)


def _said(worker: "subprocess.Popen[str]") -> dict[str, float]:
    """The line of figures, among what else a worker prints."""
    assert worker.stdout is not None  # it was asked for
    for line in worker.stdout:
        if line.startswith('{"tasks"'):
            found: dict[str, float] = json.loads(line)
            return found
    raise Unbelievable("the worker ended before its tasks")


def _fill(url: str, task: str, count: int) -> None:
    """Messages as Celery sends them, waiting for the worker."""
    with Connection(url) as connection:
        queue = Queue(working.QUEUE)(connection.default_channel)
        queue.declare()
        queue.purge()
        producer = connection.Producer()
        for _ in range(count):
            working.app.send_task(task, producer=producer)
