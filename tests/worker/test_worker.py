"""Real workers, every message published three times: results as ever, each effect once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from celery import Celery, chain, chord, group
from celery.canvas import Signature

from servers import Valkey
from tests.fixtures.programs import Program, WorkerFactory
from tests.fixtures.waiting import wait_until
from tests.worker import stuttering
from tests.worker.ledger import Ledger

SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Shop:
    """A sender with its running worker."""

    app: Celery
    worker: Program

    def task(self, name: str, *args: Any) -> Signature[Any]:
        """One of the worker's tasks, sent by this app."""
        return self.app.signature(f"{stuttering.__name__}.{name}", args)


@pytest.fixture
def shop(
    ledger: Ledger, valkey_url: str, results_server: Valkey, celery_worker: WorkerFactory
) -> Iterator[Shop]:
    """A worker of four processes on the ledger's database."""
    ledger.run("CREATE TABLE died (once int)")
    environment = {
        "LEDGER_DSN": ledger.dsn,
        "LEDGER_BROKER": valkey_url,
        "LEDGER_RESULTS": results_server.url,
    }
    worker = celery_worker(stuttering.__name__, "--concurrency=4", "-Ofair", **environment)
    with Celery(
        "sender",
        amqp=stuttering.Stutter,
        broker=valkey_url,
        backend=results_server.url,
        set_as_current=False,
    ) as app:
        yield Shop(app, worker)


def test_a_task_has_its_effect_once(ledger: Ledger, shop: Shop) -> None:
    """Three copies of one message on four processes."""
    assert shop.task("add", 1, 2).delay().get(SECONDS) == 3
    assert_effects(ledger, shop, "1+2")


def test_a_canvas_goes_on_once(ledger: Ledger, shop: Shop) -> None:
    """Copies carry the stored result on, and each next step absorbs its own copies."""
    steps = chain(shop.task("add", 1, 2), shop.task("add", 3))
    members = group([shop.task("add", n, 10) for n in range(3)], app=shop.app)
    header = [shop.task("add", 20, 1), shop.task("add", 20, 2)]
    whole = chord(header, shop.task("total"), app=shop.app)

    results = [canvas.delay() for canvas in (steps, members, whole)]

    assert [result.get(SECONDS) for result in results] == [6, [10, 11, 12], 43]
    expected = ["1+2", "3+3", "0+10", "1+10", "2+10", "20+1", "20+2", "sum of [21, 22]"]
    assert_effects(ledger, shop, *expected)


def test_retries_lead_to_one_effect(ledger: Ledger, shop: Shop) -> None:
    """Copies of a message, and of its retries, share an id: one of them succeeds."""
    assert shop.task("third_time").delay().get(SECONDS) == 2
    assert_effects(ledger, shop, "attempt 2")


def test_a_task_may_replace_itself(ledger: Ledger, shop: Shop) -> None:
    """By a chain, alone, or by a chord: what ends in itself has its id and is no duplicate."""
    results = [shop.task("countdown", 3).delay(), shop.task("gather").delay()]

    assert [result.get(SECONDS) for result in results] == ["go", 6]
    countdown = ["rest 3", "0+2", "rest 2", "rest 1", "rest 0"]
    assert_effects(ledger, shop, *countdown, "gather None", "1+1", "2+2", "gather [2, 4]")


def test_callbacks_of_duplicates_are_duplicates(ledger: Ledger, shop: Shop) -> None:
    """Single ones, several, and every canvas: each copy of the parent sends them anew."""
    add = shop.task("add", 1)
    several = [shop.task("add", 2), shop.task("add", 2)]
    steps = chain(shop.task("add", 3), shop.task("add", 30))
    members = group([shop.task("add", 4), shop.task("add", 5)], app=shop.app)
    whole = chord([shop.task("add", 6), shop.task("add", 7)], shop.task("total"), app=shop.app)

    links: list[Any] = [several, [steps], [members], [whole]]
    for link in links:
        add.apply_async((1,), link=link).get(SECONDS)

    expected = ["1+1"] * 4 + ["2+2"] * 2 + ["2+3", "5+30", "2+4", "2+5", "2+6", "2+7"]
    wait_until(lambda: len(ledger.effects()) == 13, SECONDS, "the chord's body")
    assert_effects(ledger, shop, *expected, "sum of [8, 9]")


def test_callbacks_keep_their_ids_after_a_replay_and_a_kill(ledger: Ledger, shop: Shop) -> None:
    """Sent again under its old id, long after, or by a process that died: nothing runs twice."""
    dies = shop.task("dies_once")
    for _ in range(2):
        result = dies.apply_async(task_id="known", link=shop.task("note_of"))
        assert result.get(SECONDS) == "survived"
        wait_until(lambda: len(ledger.effects()) == 2, SECONDS, "the callback")

    assert_effects(ledger, shop, "survived", "note of survived")


def test_errbacks_of_duplicates_are_duplicates(ledger: Ledger, shop: Shop) -> None:
    """Every delivery fails, and its errback is one message however often it is sent."""
    shop.task("fail").apply_async(link_error=shop.task("mourn"))
    wait_until(lambda: bool(ledger.effects()), SECONDS, "the errback")

    assert_effects(ledger, shop, "mourned")


def test_a_retry_beside_its_run_is_a_run_of_its_own(ledger: Ledger, shop: Shop) -> None:
    """retry(throw=False) goes on and commits; what it has sent runs as well, once."""
    shop.task("go_on").delay()
    wait_until(lambda: "attempt 3" in ledger.effects(), SECONDS, "the last retry")

    assert_effects(ledger, shop, "attempt 0", "attempt 1", "attempt 3")


def test_a_killed_worker_process_costs_nothing(ledger: Ledger, shop: Shop) -> None:
    """What it had done is rolled back, what it held is delivered again."""
    assert shop.task("dies_once").delay().get(SECONDS) == "survived"
    assert_effects(ledger, shop, "survived")


def test_a_duplicate_of_a_long_run_comes_back_until_it_is_answered(
    ledger: Ledger, shop: Shop
) -> None:
    """Its wait ends long before the first run does; nothing is lost and nothing runs twice."""
    with psycopg.connect(ledger.dsn) as blocker:
        blocker.execute("SELECT pg_advisory_lock(1)")
        result = shop.task("patient").delay()
        shop.worker.wait_for_output("back to the queue")

    assert result.get(SECONDS) == "done"
    assert_effects(ledger, shop, "patient")


def assert_effects(ledger: Ledger, shop: Shop, *expected: str) -> None:
    """All copies are dealt with, and these are the effects."""
    wait_until(lambda: unfinished(shop.app) == 0, SECONDS, "an empty queue")

    assert sorted(ledger.effects()) == sorted(expected)


def unfinished(app: Celery) -> int:
    """How many messages wait or are being worked on."""
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel  # kombu types what all transports have
        return int(channel.client.llen("celery") + channel.client.hlen("unacked"))
