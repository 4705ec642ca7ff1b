"""A relay's metrics tell how long tasks took, and what is missing: round by round, by one relay."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection, Queue

from outbox_relay.configuration import from_environment
from outbox_relay.core.effects import Seen
from outbox_relay.core.place import Place
from outbox_relay.errors import BrokerLost, SchemaError
from outbox_relay.observe.effects import EffectWatch
from outbox_relay.observe.metrics import Metrics
from outbox_relay.operator import effects as module
from outbox_relay.operator.effects import Effects
from tests.fixtures.receipts import NOTE
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Outbox

#: Every second one, from two hours ago on; a portion is two thousand such batches.
CONFIRMED_ONE_BY_ONE = """
WITH sent AS (
    INSERT INTO outbox.message (message_id, task, body, content_type, content_encoding)
    SELECT n::text, 'shop.bill', '[]', 'application/json', 'utf-8'
    FROM generate_series(1, 4500) n RETURNING id, slot, message_id::int AS number
), confirmed AS (
    INSERT INTO outbox.receipt (slot, sent_at, span, ids)
    SELECT slot, now() - interval '2 hours' + number * interval '1 second', int8range(id, id, '[]'),
           ARRAY[id] FROM sent
)
SELECT count(*) FROM sent;
DELETE FROM outbox.ready
"""


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts of a test are committed when they are written."""
    monkeypatch.setattr(module, "SETTLED", 0.0)


@pytest.fixture
def rounds(outbox: Outbox, database: str) -> Iterator[Effects]:
    """The rounds of a relay whose tasks have been watched for a day, without a broker."""
    outbox.connection.execute(
        "INSERT INTO inbox.watched VALUES ('shop.bill', now() - interval '1 day')"
    )
    effects = a_relay(database)
    yield effects
    effects.close()


def a_relay(database: str, broker: str = "", **options: Any) -> Effects:
    """The rounds of one more relay."""
    urls = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker}
    return Effects(from_environment(urls, need_broker=False), **options)


def note(outbox: Outbox, id: str, outcome: str = "succeeded", **more: Any) -> None:
    """A worker leaves a receipt."""
    told = {"id": id, "task": "shop.bill", "outcome": outcome, "run": 0, "finished": 0, **more}
    outbox.connection.execute(NOTE, ("w", json.dumps([told])))


def seen(effects: Effects) -> Seen:
    """What a round of a relay that looks has found."""
    found = effects.round()
    assert found is not None
    return found


def test_what_is_missing_is_counted_until_it_is_not(outbox: Outbox, rounds: Effects) -> None:
    """Found once, it is looked at again each time; what is young is not looked at yet."""
    lost, late = outbox.add_sent(ago="10 m"), outbox.add_sent(ago="9 m")
    note(outbox, outbox.add_sent(ago="10 m"))
    outbox.add_sent(ago="1 m")

    first = seen(rounds)
    assert first.missing == {Place.UNKNOWN: 2}
    assert 299 <= first.unchecked <= 310

    note(outbox, late)
    assert seen(rounds).missing == {Place.UNKNOWN: 1}
    outbox.connection.execute("SELECT outbox.replay_rows(%s)", ([outbox.row(lost)],))
    assert seen(rounds).missing == {}


def test_its_place_is_asked_for(
    outbox: Outbox, rounds: Effects, database: str, valkey_url: str
) -> None:
    """An alert on what is gone must not be rung by what waits."""
    rounds.close()
    waiting = outbox.add_sent(ago="10 m")
    outbox.add_sent(ago="10 m")
    with Connection(valkey_url) as connection:
        connection.Producer().publish(
            "x", routing_key="celery", headers={"id": waiting}, declare=[Queue("celery")]
        )
    relay = a_relay(database, valkey_url)

    assert seen(relay).missing == {Place.QUEUE: 1, Place.GONE: 1}
    relay.close()


def test_a_round_ends_with_its_budget(outbox: Outbox, rounds: Effects, database: str) -> None:
    """The next one goes on there, and meanwhile it is said how far that is."""
    rounds.close()
    outbox.connection.execute(CONFIRMED_ONE_BY_ONE)
    relay = a_relay(database, budget=0.0)

    first, second = seen(relay), seen(relay)

    assert first.missing == {Place.UNKNOWN: 2000}
    assert first.unchecked == pytest.approx(7200 - 2000, abs=30)
    assert second.missing == {Place.UNKNOWN: 4000}
    assert seen(relay).missing == {Place.UNKNOWN: 4500}
    relay.close()


def test_no_more_are_looked_for_than_can_be_told(
    outbox: Outbox, rounds: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rounds it takes; it is said how far that is, and goes on once some are done."""
    monkeypatch.setattr(module, "MAX_MISSING", 1500)
    outbox.connection.execute(CONFIRMED_ONE_BY_ONE)

    for _ in range(3):
        found = seen(rounds)
        assert found.missing == {Place.UNKNOWN: 2000}
        assert found.unchecked == pytest.approx(7200 - 2000, abs=30)

    for number in range(1, 1001):
        note(outbox, str(number))
    assert seen(rounds).missing == {Place.UNKNOWN: 3000}


def test_how_long_tasks_took(outbox: Outbox, rounds: Effects) -> None:
    """From the commit, or the eta, to the end: of those that ended since the last round."""
    early, scheduled, other = (outbox.add_sent(ago="1 m") for _ in range(3))
    note(outbox, early)
    assert seen(rounds).executions == []
    outbox.connection.execute(
        "UPDATE outbox.message SET created_at = now() - interval '1 hour',"
        " available_at = CASE WHEN message_id = %s THEN now() - interval '10 min' END",
        (scheduled,),
    )

    note(outbox, scheduled, finished=60)
    note(outbox, other, "failed", finished=60)
    note(outbox, outbox.add_sent(ago="1 m"), "held", finished=None)
    note(outbox, "not of this outbox")

    took = sorted(seen(rounds).executions)
    assert took == [pytest.approx(9 * 60, abs=5), pytest.approx(59 * 60, abs=5)]
    assert seen(rounds).executions == []


def test_one_relay_looks_at_a_time(outbox: Outbox, rounds: Effects, database: str) -> None:
    """Else each would count every task; once it is gone, another takes over."""
    outbox.add_sent(ago="10 m")
    other = a_relay(database)
    assert rounds.round() is not None
    assert other.round() is None

    rounds.close()

    # The server lets go of the lock a moment after the connection is closed.
    found = wait_until(other.round, 10, "the other to look")
    assert found is not None
    assert found.missing == {Place.UNKNOWN: 1}
    other.close()


def test_without_receipts_nothing_is_known(outbox: Outbox, database: str) -> None:
    """Nobody is accused where no worker leaves any, or where there is no inbox."""
    outbox.add_sent(ago="10 m")
    relay = a_relay(database)
    assert relay.round() is None

    outbox.connection.execute("DROP SCHEMA inbox CASCADE")
    with pytest.raises(SchemaError, match="OUTBOX_INBOX_URL"):
        relay.round()


def test_the_metrics_show_it_while_it_is_known() -> None:
    """Unknown is absent, not zero; an execution once counted stays counted."""
    answers: list[Seen | Exception] = [
        Seen([0.3, 70.0], {Place.GONE: 2}, 301.0),
        BrokerLost("away"),
        Seen(),
    ]
    metrics = Metrics()
    shown: list[dict[str, float | None]] = []

    def look() -> Seen | None:
        shown.append(
            {
                "gone": value(metrics, "outbox_missing_messages", place="gone"),
                "queue": value(metrics, "outbox_missing_messages", place="queue"),
                "count": value(metrics, "outbox_execution_seconds_count"),
            }
        )
        if not answers:
            return None
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with EffectWatch(look, metrics, first=0, every=0):
        wait_until(lambda: len(shown) >= 5, 10, "five looks")

    assert shown[:5] == [
        {"gone": None, "queue": None, "count": 0},
        {"gone": 2, "queue": 0, "count": 2},
        {"gone": None, "queue": None, "count": 2},
        {"gone": 0, "queue": 0, "count": 2},
        {"gone": None, "queue": None, "count": 2},
    ]
    assert value(metrics, "outbox_execution_seconds_bucket", le="300.0") == 2


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """What is shown."""
    return metrics.registry.get_sample_value(name, labels)
