"""Faults 43 and 44: one message at two workers at once, and workers that are killed."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psycopg
import pytest
from celery import Celery

from celery_inbox import reliable
from tests.faults import victims
from tests.faults.branch import children_of
from tests.faults.checker import judge
from tests.faults.ledger import Ledger
from tests.faults.results import Measured
from tests.fixtures.broker import Broker
from tests.fixtures.programs import Program, WorkerFactory
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
TASKS = 60
Record = Callable[[Measured], None]
Start = Callable[[], Program]
Send = Callable[..., None]


@pytest.fixture
def start(database: str, broker: Broker, celery_worker: WorkerFactory) -> Start:
    """Start a worker of two processes on the test's database and virtual host."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE effect (message_id text)")
        connection.execute("CREATE TABLE tried (message_id text PRIMARY KEY)")
    environment = {"VICTIMS_DATABASE": database, "VICTIMS_BROKER": broker.url}
    return lambda: celery_worker(victims.__name__, "--concurrency=2", "-Ofair", **environment)


@pytest.fixture
def send(broker: Broker) -> Iterator[Send]:
    """Publish a message: ``send("effect", id, 0.01, False)``."""
    with Celery("sender", broker=broker.url, set_as_current=False) as app:
        reliable(app, delivery_limit=victims.LIMIT)

        def send(task: str, id_: str, *arguments: Any) -> None:
            app.send_task(f"{victims.__name__}.{task}", arguments, task_id=id_)

        yield send


@pytest.mark.smoke
@pytest.mark.fault(43)
def test_one_message_at_two_workers(
    start: Start, send: Send, database: str, broker: Broker, record: Record
) -> None:
    """Every message twice, two workers at it at once, the first run of a third rolled back."""
    ledger = Ledger()
    ids = ledger.committed = ledger.new_ids(TASKS)
    for number, id_ in enumerate(ids):
        for _ in range(2):
            send("effect", id_, 0.01, number % 3 == 0)
    start()
    start()
    wait_until(lambda: len(effects(database)) >= TASKS, DEADLINE, "all effects")
    wait_until(lambda: not unfinished(broker), DEADLINE, "an end of the second copies")

    verdict = judge(ledger, effects(database), ids)
    verdict.assert_kept(duplicates=0)
    record(Measured(verdict, TASKS, 0, note="each effect once"))


@pytest.mark.fault(44)
def test_killed_amid_their_tasks(
    start: Start, send: Send, database: str, broker: Broker, record: Record
) -> None:
    """A process that runs one, then a whole worker, twice each: redelivered, each effect once."""
    ledger = Ledger()
    ids = ledger.committed = ledger.new_ids(TASKS)
    for id_ in ids:
        send("effect", id_, 0.1, False)
    worker, killed = start(), 0
    for wanted in (5, 15, 25, 35):
        wait_until(lambda least=wanted: len(effects(database)) >= least, DEADLINE, "some effects")  # type: ignore[misc]  # mypy infers no lambda with a default
        if killed % 2:
            worker.kill()
            worker = start()
        else:
            os.kill(children_of(worker.process.pid)[0], signal.SIGKILL)
        killed += 1
    wait_until(lambda: len(effects(database)) >= TASKS, DEADLINE, "all effects")

    verdict = judge(ledger, effects(database), ids)
    verdict.assert_kept(duplicates=0)
    record(Measured(verdict, killed, 0, note="each effect once"))


@pytest.mark.fault(44)
def test_a_message_that_kills_every_worker(
    start: Start, send: Send, database: str, broker: Broker, record: Record
) -> None:
    """After its deliveries it waits among the dead letters; the others have run."""
    ledger = Ledger()
    [deadly] = ledger.new_ids(1)
    ids = ledger.committed = ledger.new_ids(10)
    send("die", deadly)
    for id_ in ids:
        send("effect", id_, 0.01, False)
    start()
    wait_until(lambda: broker.has("celery.dead"), DEADLINE, "a queue of dead letters")
    wait_until(lambda: broker.depth("celery.dead") == 1, DEADLINE, "a dead letter")
    wait_until(lambda: len(effects(database)) >= len(ids), DEADLINE, "all effects")

    verdict = judge(ledger, effects(database), ids)
    verdict.assert_kept(duplicates=0)
    [letter] = broker.take_all("celery.dead")
    assert letter.headers["id"] == deadly
    record(Measured(verdict, victims.LIMIT, 0, note="the deadly one among the dead letters"))


def effects(database: str) -> Counter[str]:
    """The ids that tasks have left, and how often."""
    with psycopg.connect(database) as connection:
        rows: Iterable[tuple[str]] = connection.execute("SELECT message_id FROM effect")
        return Counter(id_ for (id_,) in rows)


def unfinished(broker: Broker) -> int:
    """Messages that wait or are being worked on."""
    answer = broker.ctl("list_queues", "name", "messages", "--no-table-headers")
    return sum(int(line.split()[1]) for line in answer.splitlines() if line.startswith("celery\t"))
