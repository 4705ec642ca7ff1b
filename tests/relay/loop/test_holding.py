"""A pause holds what it names on every relay, and nothing else; resumed, all of it is sent."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import psycopg
import pytest

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until
from tests.relay.loop.test_sleep import wait_for_sleep

DEADLINE = 30.0
Run = Callable[..., list[Any]]


@pytest.fixture
def run(database: str) -> Run:
    """Run a statement of its own transaction on the fresh database."""

    def execute(statement: str, *parameters: object) -> list[Any]:
        with psycopg.connect(database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    return execute


@pytest.fixture
def environment(database: str, broker: Broker) -> dict[str, str]:
    """Where a relay finds both, and the queues are."""
    for queue in ("mail", "celery"):
        broker.declare(queue)
    return {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}


def held(run: Run) -> int:
    """How many messages wait for the end of a pause, of which no claim will hear before."""
    found = run(
        "SELECT count(*) FROM outbox.parked WHERE state = 'retry' AND attempts = 0"
        " AND route LIKE chr(30) || '%%' AND last_error LIKE 'paused: %%'"
    )
    return int(found[0][0])


@pytest.mark.parametrize("relays", [1, 2])
def test_a_pause_holds_a_queue_and_nothing_else(
    relay: RelayFactory, environment: dict[str, str], database: str, broker: Broker, run: Run,
    relays: int,
) -> None:  # fmt: skip
    """It takes effect while relays run, idle or not; resumed, all of it is sent, once."""
    started = [relay(**environment) for _ in range(relays)]
    commit_rows(database, 10, routing_key="celery")
    wait_until(lambda: len(broker.take_all("celery")) == 10, DEADLINE, "others before")

    run("SELECT outbox.pause(queue => 'mail', reason => 'down')")
    wait_until(lambda: all(each.events("pauses_changed") for each in started), DEADLINE, "all know")
    commit_rows(database, 500, routing_key="mail")
    commit_rows(database, 500, routing_key="celery")
    wait_until(lambda: held(run) == 500, DEADLINE, "the mail held")
    wait_until(lambda: broker.depth("celery") == 500, DEADLINE, "the others sent")
    assert broker.depth("mail") == 0
    assert run("SELECT waiting, held, held_by FROM outbox.route WHERE routing_key = 'mail'") == [
        (500, 500, ["queue:mail"])
    ]

    run("SELECT outbox.resume(queue => 'mail')")
    wait_until(lambda: broker.depth("mail") == 500, DEADLINE, "the mail sent")
    assert len(broker.take_all("mail")) == 500
    wait_until(lambda: states(database)["pending"] == 0, DEADLINE, "all settled")
    assert states(database) == {"pending": 0, "scheduled": 0, "sent": 1010, "dead": 0}


def test_a_pause_outlives_a_relay_that_is_killed(
    relay: RelayFactory, environment: dict[str, str], database: str, broker: Broker, run: Run
) -> None:
    """Its successor knows before it claims: what the dead one held is not sent either."""
    run("SELECT outbox.pause(task => 'shop.mail*')")
    first = relay(**environment)
    commit_rows(database, 300, routing_key="mail", task="shop.mail_all")
    wait_until(lambda: held(run) > 0, DEADLINE, "some held")
    first.kill()
    commit_rows(database, 300, routing_key="mail", task="shop.mail_all")
    commit_rows(database, 20, routing_key="celery")

    relay(**environment)
    wait_until(lambda: held(run) == 600, DEADLINE, "all held")
    wait_until(lambda: broker.depth("celery") == 20, DEADLINE, "others sent")
    assert broker.depth("mail") == 0

    run("SELECT outbox.resume(everything => true)")
    wait_until(lambda: broker.depth("mail") == 600, DEADLINE, "all sent")


def test_a_pause_ends_by_itself(
    relay: RelayFactory, environment: dict[str, str], database: str, broker: Broker, run: Run
) -> None:
    """At its time, and none is sent before; what comes later is not held."""
    run("SELECT outbox.pause(everything => true, until => clock_timestamp() + interval '4 s')")
    [(until,)] = run("SELECT until FROM outbox.paused")
    commit_rows(database, 50, routing_key="mail")
    relay(**environment)

    wait_until(lambda: broker.depth("mail") == 50, DEADLINE, "all sent")
    wait_until(lambda: states(database)["sent"] == 50, DEADLINE, "all settled")
    assert run("SELECT min(sent_at) >= %s FROM outbox.sent", until) == [(True,)]
    commit_rows(database, 1, routing_key="mail")
    wait_until(lambda: broker.depth("mail") == 51, DEADLINE, "another")


def test_a_pause_that_is_cut_short_ends_while_the_relay_sleeps(
    relay: RelayFactory, environment: dict[str, str], database: str, broker: Broker, run: Run
) -> None:
    """What was set aside until its old end is sent at the new one."""
    process = relay(**environment)
    run("SELECT outbox.pause(everything => true, until => clock_timestamp() + interval '1 day')")
    process.wait_for_event("pauses_changed", DEADLINE)
    commit_rows(database, 50, routing_key="mail")
    wait_until(lambda: held(run) == 50, DEADLINE, "all held")
    wait_for_sleep(database)
    assert broker.depth("mail") == 0

    run("SELECT outbox.pause(everything => true, until => clock_timestamp() + interval '2 s')")
    wait_until(lambda: broker.depth("mail") == 50, DEADLINE, "all sent")


def test_order_within_a_key_outlives_a_pause(
    relay: RelayFactory, environment: dict[str, str], database: str, broker: Broker, run: Run
) -> None:
    """One message of each key is held, the others behind it; then all follow, one by one."""
    run("SELECT outbox.pause(queue => 'mail')")
    relay(**environment)
    sent: list[tuple[str, str]] = []
    for number in range(120):
        key = f"key-{number % 4}"
        [id_] = commit_rows(
            database, 1, routing_key="mail", ordering_key=key,
            properties=f'{{"delivery_mode": 2, "correlation_id": "{key}/{number}"}}',
        )  # fmt: skip
        sent.append((key, id_))
    wait_until(lambda: held(run) == 4, DEADLINE, "the head of each lane held")

    run("SELECT outbox.resume(queue => 'mail')")
    wait_until(lambda: broker.depth("mail") == 120, DEADLINE, "all sent")

    arrived = [str(m.properties["correlation_id"]).split("/") for m in broker.take_all("mail")]
    for _, numbers in groupby(sorted(arrived, key=lambda pair: pair[0]), lambda pair: pair[0]):
        order = [int(number) for _, number in numbers]
        assert order == sorted(order)


def test_held_messages_are_not_met_again(
    relay: RelayFactory, environment: dict[str, str], database: str, broker: Broker, run: Run
) -> None:
    """Each is set aside once, however many are sent meanwhile."""
    run("SELECT outbox.pause(queue => 'mail')")
    process = relay(**environment)
    commit_rows(database, 1000, routing_key="mail")
    wait_until(lambda: held(run) == 1000, DEADLINE, "all held")
    before = run("SELECT xmin::text FROM outbox.parked ORDER BY id")
    for _ in range(5):
        commit_rows(database, 200, routing_key="celery")
        wait_until(lambda: len(broker.take_all("celery")) > 0, DEADLINE, "others sent")

    assert run("SELECT xmin::text FROM outbox.parked ORDER BY id") == before
    wait_until(
        lambda: 'outbox_paused_messages{route="queue:mail"} 1000.0' in process.metrics(),
        DEADLINE,
        "the metric",
    )
    assert "outbox_publish_failures_total" in process.metrics()
    assert 'outbox_publish_failures_total{reason="paused"} 0.0' in process.metrics()
