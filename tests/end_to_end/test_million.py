"""Very many tasks sent while no worker runs: the queue stays short, and workers run all of it.

`make test-million` sends a million (MILLION=100000 for fewer) on RabbitMQ and on a Valkey of 64 MB,
then starts ordinary Celery workers, and prints what it measured. Each run of a task leaves a trace,
so that what is lost and what runs twice is known. It takes an hour or so.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, Final, Protocol

import psycopg
import pytest
import redis

from servers.processes import family
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until

MANY: Final = int(os.environ.get("MILLION", "1000000"))
QUEUE: Final = "mail"
MB: Final = 1 << 20
PORTION: Final = 20_000
#: Seconds without any task that is executed, after which none will be.
SILENCE: Final = 60.0
INSERT: Final = """
INSERT INTO outbox.message
    (message_id, task, routing_key, headers, properties, body, content_type, content_encoding)
SELECT 'm' || n, 'shop.mail', %s,
       ('{"lang": "py", "task": "shop.mail", "id": "m' || n || '"}')::json,
       ('{"delivery_mode": 2, "correlation_id": "m' || n || '"}')::json,
       convert_to('[[' || n || ', "somebody@example.org"], {}, {"callbacks": null}]', 'UTF8'),
       'application/json', 'utf-8'
FROM generate_series(%s::int, %s::int) n
"""
HELD: Final = "SELECT count(*) FROM outbox.parked WHERE route = chr(30) || 'depth:mail'"
NOTHING_LEFT: Final = """
SELECT NOT EXISTS (SELECT FROM outbox.ready) AND NOT EXISTS (SELECT FROM outbox.parked)
"""
RECEIPTS: Final = "SELECT count(*) FROM inbox.receipt WHERE outcome = 'succeeded'"


@dataclass(frozen=True, slots=True)
class Size:
    """How many messages, how deep the queue may be, and how far the relay goes at a time."""

    total: int
    depth: int
    window: int
    batch: int

    @property
    def patience(self) -> float:
        """Seconds for each step: for the servers, and for so many messages."""
        return 60 + self.total / 250


FEW: Final = Size(1_000, 200, 50, 25)
MILLION: Final = Size(MANY, 10_000, 4_000, 500)
SIZES: Final = [
    pytest.param(FEW, id="few"),
    pytest.param(
        MILLION, id="many", marks=[pytest.mark.long, pytest.mark.timeout(4 * MILLION.patience)]
    ),
]


class Watched(Protocol):
    """The broker with the queue."""

    @property
    def url(self) -> str:
        """As Celery reads it."""

    def depth(self) -> int:
        """How many messages are ready in the queue."""

    def memory(self) -> int:
        """Bytes that the broker uses."""


class OnRabbit:
    """A virtual host; the memory is that of all processes of its node."""

    def __init__(self, broker: Broker) -> None:
        self._broker, self.url = broker, broker.url

    def depth(self) -> int:
        """As the broker tells."""
        return self._broker.depth(QUEUE)

    def memory(self) -> int:
        """As the system tells."""
        return sum(map(_resident, family(self._broker.node.process.pid)))


class OnValkey:
    """A server; the memory is what it counts towards its limit, and more."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Any = redis.Redis.from_url(url)

    def depth(self) -> int:
        """The length of the list."""
        return int(self._client.llen(QUEUE))

    def memory(self) -> int:
        """As the server tells."""
        return int(self._client.info("memory")["used_memory"])


class Most:
    """The highest values seen, a few times a second, until the end."""

    def __init__(self, watched: Watched) -> None:
        self.depth = self.memory = 0
        self._watched, self._over = watched, Event()
        self._thread = Thread(target=self._watch, daemon=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.depth = max(self.depth, self._watched.depth())
            self.memory = max(self.memory, self._watched.memory())


class Trace:
    """What the tasks have left, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, 0
        path.touch()
        self.runs: Counter[int] = Counter()

    def read(self) -> int:
        """How many of the tasks have run; of a line that is half there, nothing yet."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.runs.update(map(int, whole.split()))
        self._read += len(whole)
        return len(self.runs)

    def wait_for_more_than(self, runs: int) -> None:
        """However slow it is, it goes on."""
        wait_until(lambda: self.read() > runs, SILENCE, f"more than {runs:,} to be executed")


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # it has ended
        return 0


def insert(database: str, total: int) -> None:
    """As many tasks, a portion at a time."""
    with psycopg.connect(database, autocommit=True) as connection:
        for first in range(1, total + 1, PORTION):
            last = min(total, first + PORTION - 1)
            connection.execute(INSERT.encode(), [QUEUE, first, last])


def number(database: str, query: str) -> int:
    """What the query counts, or whether it is so."""
    with psycopg.connect(database) as connection:
        row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True)
class Ground:
    """Where it takes place."""

    database: str
    watched: Watched
    relay: RelayFactory
    worker: WorkerFactory
    folder: Path

    def send(self, size: Size, **settings: str) -> str:
        """All is sent while no worker runs; what was measured, in words."""
        self.relay(
            OUTBOX_DATABASE_URL=self.database,
            OUTBOX_BROKER_URL=self.watched.url,
            OUTBOX_WINDOW=str(size.window),
            OUTBOX_BATCH_SIZE=str(size.batch),
            **settings,
        )
        began = monotonic()
        insert(self.database, size.total)

        def all_at_rest() -> bool:
            idle = number(self.database, "SELECT NOT EXISTS (SELECT FROM outbox.ready)")
            there = self.watched.depth() + number(self.database, HELD)
            return bool(idle) and there == size.total

        wait_until(all_at_rest, size.patience, "all sent or set aside")
        aside, waiting = monotonic() - began, number(self.database, HELD)
        return (
            f"{size.total:,} sent: {self.watched.depth():,} in the queue and {waiting:,} set aside "
            f"after {aside:.0f} s"
        )

    def work_off(self, size: Size) -> str:
        """Celery's workers run all of it, once; what was measured, in words."""
        trace = Trace(self.folder / "trace")
        worker = self.worker(
            "tests.end_to_end.mail_worker",
            "--concurrency=2",
            MAIL_BROKER=self.watched.url,
            MAIL_DATABASE=self.database,
            MAIL_TRACE=str(trace.path),
        )
        began = monotonic()
        while (executed := trace.read()) < size.total:
            trace.wait_for_more_than(executed)
        seconds = monotonic() - began
        self._counts(NOTHING_LEFT, 1, size.patience)
        self._counts(RECEIPTS, size.total, size.patience)
        worker.stop()
        executed = trace.read()
        lost = size.total - len(trace.runs.keys() & {*range(1, size.total + 1)})
        twice = trace.runs.total() - executed
        assert (executed, lost, twice) == (size.total, 0, 0)
        return (
            f"worked off by Celery within {seconds:.0f} s, {size.total / seconds:,.0f} tasks/s: "
            f"executed {executed:,}, lost {lost}, twice {twice}"
        )

    def _counts(self, query: str, wanted: int, patience: float) -> None:
        wait_until(lambda: number(self.database, query) == wanted, patience, query)


def send_and_work_off(ground: Ground, size: Size, **settings: str) -> tuple[str, Most]:
    """Workers off, all is sent; workers on, all is executed, once."""
    most = Most(ground.watched)
    with most.watching():
        told = [ground.send(size, **settings), ground.work_off(size)]
    told.insert(1, f"most in the queue {most.depth:,}, most memory {most.memory / MB:.1f} MB")
    return "; ".join(told), most


@pytest.mark.parametrize("size", SIZES)
def test_a_queue_of_rabbitmq_stays_short(
    relay: RelayFactory,
    celery_worker: WorkerFactory,
    database: str,
    broker: Broker,
    tmp_path: Path,
    size: Size,
) -> None:
    """By OUTBOX_MAX_DEPTH: no more than that, and a window; and it never asks for a pause."""
    broker.declare(QUEUE)
    ground = Ground(database, OnRabbit(broker), relay, celery_worker, tmp_path)

    told, most = send_and_work_off(ground, size, OUTBOX_MAX_DEPTH=str(size.depth))

    print(f"\nRabbitMQ, OUTBOX_MAX_DEPTH={size.depth}: {told}")
    assert 0 < most.depth <= size.depth + size.window
    assert "broker_blocked" not in _logs(tmp_path)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limited", [True, False], ids=["depth", "default"])
def test_a_valkey_of_64_mb_stays_free(
    relay: RelayFactory,
    celery_worker: WorkerFactory,
    database: str,
    own_valkey: OwnValkey,
    tmp_path: Path,
    size: Size,
    limited: bool,
) -> None:
    """By OUTBOX_MAX_DEPTH, and with no setting at all by its memory: it never refuses a write."""
    watched = OnValkey(own_valkey({"maxmemory": "64mb"}).url)
    ground = Ground(database, watched, relay, celery_worker, tmp_path)
    settings = {"OUTBOX_MAX_DEPTH": str(size.depth)} if limited else {}

    told, most = send_and_work_off(ground, size, **settings)

    print(f"\nValkey, 64 MB, {'OUTBOX_MAX_DEPTH' if limited else 'default'}: {told}")
    assert 0 < most.memory < 64 * MB
    assert not limited or 0 < most.depth <= size.depth + size.window
    assert "broker_blocked" not in _logs(tmp_path)


def test_half_a_line_is_nothing_yet(tmp_path: Path) -> None:
    """What a worker is writing just now would be another number."""
    trace = Trace(tmp_path / "trace")
    with trace.path.open("wb", buffering=0) as file:
        file.write(b"12\n34")
        assert trace.read() == 1
        file.write(b"56\n")
        assert trace.read() == 2

    assert trace.runs == Counter((12, 3456))


def _logs(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.glob("outbox-relay-*.log"))
