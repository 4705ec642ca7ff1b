"""The app of a worker whose rate is measured: `celery -A bench.programs.working worker`.

It prints one line of JSON once so many tasks are done: their seconds and its CPU seconds, both
without those of the first ones, in which caches and connections are warmed.
"""

import json
import os
import sys
from time import perf_counter, process_time, sleep
from typing import Any, Final

from celery import Celery
from psycopg_pool import ConnectionPool

from celery_inbox import receipts

#: Named by the environment, as arguments are for everybody to see.
URL: Final = "BENCH_URL"
DATABASE: Final = "BENCH_DATABASE"
RECEIPTS: Final = "BENCH_RECEIPTS"
TASKS: Final = "BENCH_TASKS"

QUEUE: Final = "working"
NOTHING: Final = "bench.nothing"
TRANSACTION: Final = "bench.transaction"
MILLISECOND: Final = "bench.millisecond"
TEN_MILLISECONDS: Final = "bench.ten_milliseconds"
#: The share of the tasks that come before the measurement.
WARMING: Final = 0.1
WRITE: Final = "INSERT INTO working (note) VALUES (%s)"

app = Celery("working", broker=os.environ.get(URL), set_as_current=False)
app.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    # With the usual four, all acknowledgements may wait while the worker sleeps, for ten seconds:
    # findings/hub_sleeps_beside_what_is_ready.sh
    worker_prefetch_multiplier=64,
)
if os.environ.get(RECEIPTS):
    receipts(app, os.environ[DATABASE])


class Meter:
    """Counts the tasks that are done."""

    def __init__(self, total: int) -> None:
        self._total, self._warm = total, int(total * WARMING)
        self._done = 0
        self._began = self._spent = 0.0

    def count(self) -> None:
        """One more is done."""
        self._done += 1
        if self._done == self._warm:
            self._began, self._spent = perf_counter(), process_time()
        elif self._done == self._total:
            said = {
                "tasks": self._total - self._warm,
                "seconds": perf_counter() - self._began,
                "cpu": process_time() - self._spent,
            }
            # Celery has a worker's sys.stdout among its log.
            print(json.dumps(said), file=sys.__stdout__, flush=True)


meter = Meter(int(os.environ.get(TASKS, "100")))
pool: Any = ConnectionPool(os.environ.get(DATABASE, ""), min_size=1, max_size=1, open=False)


@app.task(name=NOTHING)
def nothing() -> None:
    """What is left is the worker itself."""
    meter.count()


@app.task(name=MILLISECOND)
def millisecond() -> None:
    """Wait for a short answer."""
    sleep(0.001)
    meter.count()


@app.task(name=TEN_MILLISECONDS)
def ten_milliseconds() -> None:
    """Wait for a longer one."""
    sleep(0.01)
    meter.count()


@app.task(name=TRANSACTION)
def transaction() -> None:
    """Write one row, on a pooled connection."""
    if pool.closed:
        pool.open(wait=True)
    with pool.connection() as connection:
        connection.execute(WRITE, ("x",))
    meter.count()
