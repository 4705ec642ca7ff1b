"""What is done for an outbox among many beside publishing, turn by turn, on a real database."""

from threading import Lock
from time import monotonic

import pytest

from outbox_relay.broker.publisher import Publisher
from outbox_relay.configuration import from_environment
from outbox_relay.errors import BrokerLost, SchemaError
from outbox_relay.loop.incidents import outages
from outbox_relay.many import chores
from outbox_relay.many.chores import Chores, chores_of, effects_of, homecoming_of
from outbox_relay.many.desk import Desk
from outbox_relay.many.observe import Boards
from outbox_relay.many.outbox import Outbox as Served
from outbox_relay.many.rota import Rota
from outbox_relay.operator import effects
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Outbox
from tests.relay.operator.test_effects import CONFIRMED_ONE_BY_ONE, note, value

SECONDS = 10.0


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts of a test are committed when they are written."""
    monkeypatch.setattr(effects, "SETTLED", 0.0)


@pytest.fixture
def desk(outbox: Outbox, database: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """An outbox whose task has been watched for a day; a turn looks at one portion."""
    monkeypatch.setattr(chores, "EFFECTS_BUDGET", 0.0)
    outbox.connection.execute(
        "INSERT INTO inbox.watched VALUES ('shop.bill', now() - interval '1 day')"
    )
    urls = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": ""}
    settings = from_environment(urls, need_broker=False)
    metrics, health = Boards().board("shop")

    def refuse(*, for_suspects: bool = False, elsewhere: bool = False) -> Publisher:
        raise BrokerLost("there is none")

    return Desk(
        Served("shop", settings),
        metrics,
        health,
        *outages(monotonic),
        refuse,
        homecoming_of(settings, metrics),
        effects_of(settings),
    )


def look(desk: Desk, outbox: Outbox) -> None:
    """A turn, as far as it is about what became of messages; nothing is left open."""
    dict(chores_of(desk))["effects"]()
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = %s"
    )
    wait_until(
        lambda: outbox.connection.execute(others, (effects.NAME,)).fetchone() == (0,),
        SECONDS,
        "no connection is kept between two turns",
    )


def test_a_turn_goes_on_where_the_last_one_stopped(desk: Desk, outbox: Outbox) -> None:
    """Else what was confirmed after the first portion would never be missed."""
    outbox.connection.execute(CONFIRMED_ONE_BY_ONE)

    def missing() -> float | None:
        look(desk, outbox)
        return value(desk.metrics, "outbox_missing_messages", place="unknown")

    assert [missing() for _ in range(4)] == [2000, 4000, 4500, 4500]
    assert value(desk.metrics, "outbox_missing_unchecked_seconds") == pytest.approx(300, abs=30)


def test_how_long_tasks_took_is_counted(desk: Desk, outbox: Outbox) -> None:
    """Of those that ended since the turn before, each once."""
    name = "outbox_execution_seconds_count"
    look(desk, outbox)
    for _ in range(3):
        note(outbox, outbox.add_sent(ago="1 m"))

    look(desk, outbox)
    assert value(desk.metrics, name) == 3
    look(desk, outbox)
    assert value(desk.metrics, name) == 3


def test_a_turn_that_takes_long_is_not_had_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads share the turns, and an outbox has one at a time."""
    done: list[str] = []

    def again() -> None:
        done.append("first")
        other._turn(desk)

    monkeypatch.setattr(chores, "chores_of", lambda *_, **__: [("slow", again)])
    rota, lock = Rota(), Lock()
    one, other = (Chores(lambda: [desk], rota, lock) for _ in range(2))

    one._turn(desk)
    assert done == ["first"]

    monkeypatch.setattr(
        chores, "chores_of", lambda *_, **__: [("quick", lambda: done.append("next"))]
    )
    one._turn(desk)
    assert done == ["first", "next"]


def test_an_inbox_that_is_not_there_is_looked_for_seldom(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most outboxes have none, and each look takes a connection."""
    looks: list[str] = []

    def look_in_vain() -> None:
        looks.append("in vain")
        raise SchemaError("no worker leaves receipts")

    monkeypatch.setattr(desk.effects, "round", look_in_vain)
    for _ in range(3):
        dict(chores_of(desk))["effects"]()
    assert len(looks) == 1

    desk.unseen_until = 0.0
    dict(chores_of(desk))["effects"]()
    assert len(looks) == 2
