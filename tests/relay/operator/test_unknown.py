"""Tasks that no live worker of their queue knows are named: by doctor, status and a metric."""

import json
from typing import Any

import psycopg
import pytest

from outbox_migrations import upgrade
from outbox_relay.configuration import from_environment
from outbox_relay.core.finding import Level
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.queues import QueueWatch
from outbox_relay.operator.doctor.workers import judge
from outbox_relay.operator.session import Session
from outbox_relay.operator.unknown import UnknownTask, Waiting, read, watch
from outbox_relay.operator.unknown import judge as judge_waiting
from tests.fixtures.broker import Broker
from tests.fixtures.receipts import NOTE
from tests.fixtures.rows import commit_rows
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Cli, Doctor, Outbox, finding


def announce(database: str, node: str, queue: str, *tasks: str, seconds: float = 60) -> None:
    """A worker says so."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "SELECT inbox.announce(%s, json_build_object('queues', ARRAY[%s]::text[],"
            " 'tasks', %s::text[]), %s)",
            [node, queue, list(tasks), seconds],
        )


def send(database: str, task: str, count: int = 1, **columns: Any) -> None:
    """Messages of that task."""
    commit_rows(database, count, task=task, headers=f'{{"task": "{task}"}}', **columns)


def test_doctor_status_and_metrics_name_them(
    doctor: Doctor, cli: Cli, database: str, broker: Broker
) -> None:
    """With their queue and how many wait."""
    broker.declare("celery")
    send(database, "shop.bill")
    send(database, "shop.new", 3)
    announce(database, "a", "celery", "shop.bill")
    announce(database, "gone", "celery", "shop.new", seconds=-1)
    announce(database, "b", "letters", "shop.new")

    text = finding(doctor(), "problem", "workers")
    assert "2 alive, and none knows: 3 x shop.new for queue 'celery'" in text
    assert "OUTBOX_HOLD_UNKNOWN=1" in text
    assert cli("status", "--json").json()["unknown_tasks"] == [
        {"task": "shop.new", "queue": "celery", "messages": 3}
    ]
    assert "no worker knows\t3 x shop.new for queue 'celery'" in cli("status").out

    metrics = Metrics()
    settings = from_environment({"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url})

    def shown() -> float | None:
        labels = {"task": "shop.new", "queue": "celery"}
        return metrics.registry.get_sample_value("outbox_unknown_task_messages", labels)

    def counts() -> dict[tuple[str, str], int]:
        return {(each.task, each.queue): each.messages for each in watch(settings)}

    with QueueWatch(list, metrics, unknown=counts, first=0, every=0.1):
        wait_until(lambda: shown() == 3, 20, "the metric")
        announce(database, "new", "celery", "shop.new")
        wait_until(lambda: shown() is None, 20, "the metric gone")


def test_an_inbox_in_another_database(
    doctor: Doctor, cli: Cli, database: str, empty_database: str, broker: Broker
) -> None:
    """What its workers say counts here too; while it is away, that is all that is not known."""
    broker.declare("celery")
    upgrade(empty_database, component="inbox")
    send(database, "shop.new")
    announce(empty_database, "a", "celery", "shop.bill")
    inbox = {"OUTBOX_INBOX_URL": empty_database}

    assert "1 alive, and none knows: 1 x shop.new" in finding(doctor(**inbox), "problem", "workers")
    assert cli("status", "--json", **inbox).json()["unknown_tasks"]

    away = {"OUTBOX_INBOX_URL": "host=127.0.0.1 port=1"}
    text = finding(doctor(**away), "problem", "workers")
    assert "the inbox: " in text
    assert "OUTBOX_INBOX_URL" in text
    status = cli("status", "--json", **away)
    assert (status.code, status.json()["pending"], status.json()["unknown_tasks"]) == (0, 1, [])


def test_what_was_thrown_away_and_nobody_knows_yet(
    doctor: Doctor, cli: Cli, outbox: Outbox, database: str, broker: Broker
) -> None:
    """Sent, and missing, until a worker that knows it is there or it is sent again."""
    broker.declare("celery")
    thrown = outbox.add_sent("shop.new", ago="10 m")
    home = outbox.add_dead("shop.new")
    announce(database, "a", "celery", "shop.bill")
    receipts = [
        {"id": id, "task": "shop.new", "outcome": "unregistered", "run": 0} for id in (thrown, home)
    ]
    outbox.connection.execute(NOTE, ("a", json.dumps(receipts)))
    outbox.connection.execute(
        "INSERT INTO inbox.watched VALUES ('shop.new', now() - interval '1 day')"
    )

    assert cli("status", "--json").json()["unknown_missing"] == [
        {"task": "shop.new", "queue": "celery", "messages": 1}
    ]
    assert "missing, unknown\t1 x shop.new for queue 'celery'" in cli("status").out
    text = finding(doctor(), "problem", "effects")
    assert "no worker has finished 1: 1 x shop.new, which no live worker of its queue knows" in text
    assert "outbox-relay replay --missing" in text

    announce(database, "b", "celery", "shop.new")
    assert cli("status", "--json").json()["unknown_missing"] == []
    assert "which no live worker" not in finding(doctor(), "problem", "effects")

    cli("replay", "--missing", "--yes")
    assert "workers have finished all" in finding(doctor(), "ok", "effects")


def test_without_workers_that_say_anything_nothing_is_known(doctor: Doctor, database: str) -> None:
    """No finding accuses anybody."""
    send(database, "shop.new")

    assert "none says which tasks it knows" in finding(doctor(), "ok", "workers")


def test_of_nothing_it_is_not_said_that_it_was_finished(doctor: Doctor, outbox: Outbox) -> None:
    """Workers leave receipts, and nothing was confirmed that could be looked for."""
    outbox.connection.execute("INSERT INTO inbox.watched VALUES ('shop.new', now())")

    assert "nothing to look at" in finding(doctor(), "ok", "effects")


def test_a_login_that_may_not_read_the_inbox(database: str) -> None:
    """Nothing is known, and nothing fails: the schema may be newer than the grants."""
    send(database, "shop.new")
    announce(database, "a", "celery", "shop.bill")
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("CREATE ROLE apart LOGIN PASSWORD 'p'")
        try:
            admin.execute("GRANT USAGE ON SCHEMA outbox TO apart")
            admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA outbox TO apart")
            url = psycopg.conninfo.make_conninfo(database, user="apart", password="p")
            settings = from_environment(
                {"OUTBOX_DATABASE_URL": url, "OUTBOX_BROKER_URL": "amqp://x"}
            )
            with Session.open(settings) as session:
                assert read(session, session) == []
        finally:
            admin.execute("DROP OWNED BY apart")
            admin.execute("DROP ROLE apart")


def test_a_route_whose_queue_is_not_told_accuses_nobody() -> None:
    """Bindings made by others are not known."""
    waiting = [Waiting("a", "topic", "key", "[]", 3), Waiting("a", "", "other", "[]", 3)]

    assert judge_waiting(waiting, {"q": frozenset()}) == []


@pytest.mark.parametrize("held", [True, False])
def test_what_becomes_of_them_is_said(held: bool) -> None:
    """They wait, or are refused; names cannot forge a line."""
    found = [UnknownTask(f"task\n{n}", "q", n) for n in range(8)]

    said = judge(2, found, held=held)
    assert said.level is Level.PROBLEM
    assert ("they wait" in said.text) is held
    assert "and 3 more" in said.text
    assert "\n" not in said.text
