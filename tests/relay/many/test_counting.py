"""A count of one of many outboxes holds up neither another nor itself, whatever it waits for."""

from types import SimpleNamespace
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from outbox_relay.many.counting import EVERY, EVERY_IDLE, Turns
from outbox_relay.many.desk import Desk
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until
from tests.relay.loop.test_counting import FOREVER, hanging_counts, wait_for_a_hanging_count
from tests.relay.many.tenants import DEADLINE, Serve, Tenant
from tests.relay.many.test_watch import outbox_of


def desk_of(tenant: Tenant, *, seated: bool = False) -> Desk:
    """As far as turns look at it."""
    desk = SimpleNamespace(outbox=outbox_of(tenant), seated=seated, moved=False)
    return cast("Desk", cast("Any", desk))


def taken(turns: Turns, desks: list[Desk], now: float, took: float = 0.0) -> list[str]:
    """The schemas of one turn, which is over at once."""
    turn = turns.take(desks, now)
    for desk in turn:
        turns.counted(desk, now, took)
    if turn:
        turns.done(turn)
    return [desk.outbox.settings.schema for desk in turn]


A, B, ELSEWHERE = (
    Tenant("postgresql:///app", "a", "a"),
    Tenant("postgresql:///app", "b", "b"),
    Tenant("postgresql:///eu", "c", "c"),
)


def test_who_works_is_counted_often_and_who_rests_seldom() -> None:
    """Every five seconds, and every two minutes; at first at once, a database at a time."""
    turns, desks = Turns(), [desk_of(A), desk_of(B, seated=True), desk_of(ELSEWHERE)]

    assert taken(turns, desks, 0.0) == ["a", "b"]
    assert taken(turns, desks, 0.0) == ["c"]
    assert taken(turns, desks, EVERY - 1) == []
    assert taken(turns, desks, EVERY) == ["b"]
    assert taken(turns, desks, EVERY_IDLE) == ["a", "b"]


def test_a_database_has_one_turn_at_a_time() -> None:
    """Until it is over, whoever else counts goes to others."""
    turns, desks = Turns(), [desk_of(A, seated=True), desk_of(ELSEWHERE)]
    assert turns.take(desks, 0.0) == [desks[0]]

    assert taken(turns, desks, 100.0) == ["c"]
    assert taken(turns, desks, 100.0) == []


def test_a_slow_count_comes_seldom() -> None:
    """So that it takes a tenth of the time, while those beside it keep theirs."""
    turns, slow, quick = Turns(), desk_of(A, seated=True), desk_of(B, seated=True)
    assert taken(turns, [slow, quick], 0.0) == ["a", "b"]
    turns.counted(slow, 0.0, 10.0)

    assert taken(turns, [slow, quick], EVERY) == ["b"]
    assert taken(turns, [slow, quick], 100.0) == ["a", "b"]


def shown(relay: Relay) -> dict[str, float]:
    """How many messages are scheduled, by outbox."""
    return {
        sample.labels["outbox"]: sample.value
        for family in text_string_to_metric_families(relay.metrics())
        for sample in family.samples
        if sample.name == "outbox_scheduled_messages"
    }


def test_messages_flow_while_a_count_hangs(serve: Serve, databases: list[list[Tenant]]) -> None:
    """Of the outbox that is counted, of its neighbours, and in other databases.

    Once it can be counted, the numbers are right.
    """
    tenants = [tenant for database in databases for tenant in database]
    hanging = databases[0][0]
    lines = [f"{d[0].url} tenant_* name={n}" for n, d in zip("xy", databases, strict=True)]
    for tenant in tenants:
        tenant.commit(2, available_in=3600)
    with hanging_counts(hanging.url, hanging.schema):
        relay = serve(*lines, **FOREVER)
        wait_for_a_hanging_count(hanging.url)

        for _ in range(2):
            for tenant in tenants:
                tenant.wait_sent(tenant.commit(20))
        wait_for_a_hanging_count(hanging.url)

    wait_until(
        lambda: [*shown(relay).values()] == [2.0] * len(tenants), DEADLINE, "all counts are right"
    )
    with hanging_counts(hanging.url, hanging.schema):
        hanging.wait_sent(hanging.commit())
        wait_for_a_hanging_count(hanging.url)
        assert relay.stop() == 0
