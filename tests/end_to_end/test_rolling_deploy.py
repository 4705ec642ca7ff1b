"""A rolling deploy that adds, renames and removes tasks under load loses nothing.

Old and new workers share a queue for a while, and tasks are sent that only one of them knows. With
the guard, none of them fails, nor ends among the dead letters: it waits for its worker.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.rows import ids_in
from tests.fixtures.waiting import wait_until
from tests.worker import release
from tests.worker.ledger import Ledger

OLD = "shop.bill,shop.mail,shop.fax"
NEW = "shop.bill,shop.send_mail,shop.text"  # mail was renamed, text was added, fax was removed


@dataclass(frozen=True, slots=True)
class Size:
    """At least so many of each task, however quick the deploy is, and how long to wait for all."""

    least: int
    seconds: float


SIZES = [
    pytest.param(Size(60, seconds=120), id="60"),
    pytest.param(Size(1000, seconds=900), id="1000", marks=pytest.mark.long),
]
pytestmark = pytest.mark.timeout(1800)


class Senders:
    """Send tasks as SQL does, in the background, and remember the ids by name."""

    def __init__(self, database: str, size: Size) -> None:
        self._database, self._least, self._seconds = database, size.least, size.seconds
        self.sent: dict[str, list[str]] = {}

    @contextmanager
    def sending(self, *names: str) -> Iterator[None]:
        """Send these in turn for the length of the block, and then until there are enough."""
        ended = threading.Event()

        def send() -> None:
            count = 0
            with psycopg.connect(self._database, autocommit=True) as connection:
                while count < self._least or not ended.wait(0.05):
                    count += 1
                    for name in names:
                        rows = connection.execute("SELECT outbox.enqueue(%s)", (name,)).fetchall()
                        self.sent.setdefault(name, []).append(str(rows[0][0]))

        pool = ThreadPoolExecutor(1)
        sending = pool.submit(send)
        try:
            yield
        finally:
            ended.set()
            pool.shutdown(wait=False)
            sending.result(self._seconds)


@pytest.fixture
def ledger(database: str) -> Ledger:
    """The database of outbox and inbox, with a table for what tasks do."""
    ledger = Ledger(database)
    ledger.run("CREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY, note text)")
    return ledger


@pytest.fixture(params=["broker_url", "valkey_url"], ids=["rabbitmq", "valkey"])
def url(request: pytest.FixtureRequest) -> str:
    """On each broker."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> Size:
    """Some of each, and a thousand of each in the long run."""
    found: Size = request.param
    return found


@pytest.fixture
def deploy(
    ledger: Ledger, url: str, size: Size, relay: RelayFactory, celery_worker: WorkerFactory
) -> Callable[[str], Senders]:
    """Roll from old to new workers, one after another, while both kinds of tasks are sent."""

    def deploy(hold: str) -> Senders:
        relay(OUTBOX_DATABASE_URL=ledger.dsn, OUTBOX_BROKER_URL=url, OUTBOX_HOLD_UNKNOWN=hold)
        environment = {"RELEASE_DATABASE": ledger.dsn, "RELEASE_BROKER": url}

        def worker(tasks: str) -> Callable[[], int]:
            return celery_worker(release.__name__, RELEASE_TASKS=tasks, **environment).stop

        senders = Senders(ledger.dsn, size)
        old = [worker(OLD), worker(OLD)]
        with senders.sending("shop.bill", "shop.mail", "shop.fax"):
            old.pop()()
        # The new producers are there before the new workers.
        with senders.sending("shop.bill", "shop.send_mail", "shop.text"):
            worker(NEW)
            old.pop()()
            worker(NEW)
        return senders

    return deploy


def ran(ledger: Ledger) -> dict[str, list[str]]:
    """The ids that had an effect, by name."""
    found: dict[str, list[str]] = {}
    for note in ledger.effects():
        name, _, id = note.partition(" ")
        found.setdefault(name, []).append(id)
    return found


def test_with_the_guard_nothing_fails(
    ledger: Ledger, size: Size, deploy: Callable[[str], Senders]
) -> None:
    """All that some worker knows runs once; what nobody knows any more waits, and is named."""
    senders = deploy("1")
    expected = {name: senders.sent[name] for name in NEW.split(",")}

    wait_until(
        lambda: all(len(ran(ledger).get(n, [])) >= len(ids) for n, ids in expected.items()),
        size.seconds,
        "every task that some worker knows",
    )

    effects = ran(ledger)
    for name, ids in expected.items():
        assert sorted(effects[name]) == sorted(ids), name
    removed = {*senders.sent["shop.mail"], *senders.sent["shop.fax"]}
    done = {*effects.get("shop.mail", []), *effects.get("shop.fax", [])}
    wait_until(
        lambda: ids_in(ledger.dsn, "pending") == removed - done, size.seconds, "the others waiting"
    )
    assert ids_in(ledger.dsn, "dead") == set()
    reasons = ledger.run("SELECT DISTINCT split_part(last_error, ':', 1) FROM outbox.pending")
    assert reasons in ([], [("unknown task",)])


def test_without_it_nothing_is_lost(
    ledger: Ledger, size: Size, deploy: Callable[[str], Senders]
) -> None:
    """Each ran, or is dead with the reason, and a retry has it run."""
    senders = deploy("0")
    everything = {id for ids in senders.sent.values() for id in ids}

    def accounted() -> bool:
        effects = {id for ids in ran(ledger).values() for id in ids}
        return effects | ids_in(ledger.dsn, "dead") == everything

    wait_until(accounted, size.seconds, "each to have run, or to be dead")
    reasons = ledger.run("SELECT DISTINCT split_part(last_error, ':', 1) FROM outbox.dead")
    assert reasons in ([], [("unregistered task",)])
    ledger.run(
        "SELECT outbox.retry(message_id) FROM outbox.dead"
        " WHERE task NOT IN ('shop.mail', 'shop.fax')"
    )
    expected = {id for name in NEW.split(",") for id in senders.sent[name]}
    wait_until(
        lambda: expected <= {id for ids in ran(ledger).values() for id in ids},
        size.seconds,
        "what was retried",
    )
    assert len(ledger.effects()) == len({*ledger.effects()})
