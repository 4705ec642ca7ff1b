"""The queues of many outboxes, at a real broker: each is asked about once, and shown of its own."""

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

import pytest

from outbox_relay.broker.registry import publisher_factory
from outbox_relay.core.depth import Depth
from outbox_relay.errors import BrokerLost
from outbox_relay.loop.incidents import outages
from outbox_relay.many.chores import chores_of, effects_of, homecoming_of
from outbox_relay.many.desk import Desk
from outbox_relay.many.observe import MAX_ROUTES, Boards
from outbox_relay.many.queues import MAX_QUEUES, Queues
from outbox_relay.operator import depths as module
from outbox_relay.settings import Secret, Settings
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import wait_until
from tests.relay.many.tenants import DEADLINE, Tenant
from tests.relay.many.test_watch import outbox_of


def desk_of(tenant: Tenant, url: str, *queues: str) -> Desk:
    """The desk of an outbox that sends to these."""
    outbox = outbox_of(tenant)
    settings = replace(outbox.settings, broker_url=Secret("OUTBOX_BROKER_URL", url))
    metrics, health = Boards().board(outbox.name)
    homecoming = homecoming_of(settings, metrics)
    open_publisher = publisher_factory(settings)
    desk = Desk(
        replace(outbox, settings=settings),
        metrics,
        health,
        *outages(monotonic),
        open_publisher,
        homecoming,
        effects_of(settings),
    )
    desk.queues = queues
    return desk


def see_queues(desk: Desk) -> None:
    """The chore that finds out where its messages go."""
    (see,) = (do for name, do in chores_of(desk) if name == "queues")
    see()


def shown(desk: Desk, name: str = "outbox_queue_depth") -> dict[str, float]:
    """What the metrics of an outbox say of its queues."""
    return {
        sample.labels["queue"]: sample.value
        for family in desk.metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_each_shows_the_queues_it_sends_to(databases: list[list[Tenant]], broker: Broker) -> None:
    """Where its messages go, its chores have seen; nobody takes them."""
    first, second, _ = databases[0]
    desks = [desk_of(tenant, broker.url) for tenant in (first, second)]
    first.commit(3)
    broker.declare(first.queue)
    for desk in desks:
        see_queues(desk)
    assert [desk.queues for desk in desks] == [(first.queue,), ()]

    with Queues(lambda: desks, every=0.05):
        wait_until(lambda: shown(desks[0]), DEADLINE, "the queue")
    assert shown(desks[0]) == {first.queue: 0}
    assert shown(desks[0], "outbox_queue_consumers") == {first.queue: 0}
    assert shown(desks[1]) == {}


def test_where_no_metrics_are_shown_nothing_is_looked_for(databases: list[list[Tenant]]) -> None:
    """With OUTBOX_HTTP_ADDRESS=off."""
    desk = desk_of(databases[0][0], "amqp://a")

    assert [name for name, _ in chores_of(desk, shown=False)] == [
        name for name, _ in chores_of(desk) if name != "queues"
    ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Which queues were asked about, each time; all of them have five messages."""
    asked: list[list[str]] = []

    def of(_: Settings, queues: Sequence[str]) -> list[Depth]:
        asked.append([*queues])
        return [Depth(queue, 5, 1) for queue in queues]

    monkeypatch.setattr(module, "of", of)
    return asked


def test_a_broker_is_asked_once_about_a_queue_of_many(
    databases: list[list[Tenant]], asked: list[list[str]]
) -> None:
    """Another broker is asked by itself, and nobody about more than there is room for."""
    one, two, three = databases[0]
    many = [f"q{number}" for number in range(2 * MAX_QUEUES)]
    desks = [
        desk_of(one, "amqp://a", "celery", "mail"),
        desk_of(two, "amqp://a", "celery"),
        desk_of(three, "amqp://b", "celery", *many),
    ]
    with Queues(lambda: desks, every=0.05):
        wait_until(lambda: len(asked) >= 2, DEADLINE, "both are asked")
        wait_until(lambda: shown(desks[2]), DEADLINE, "the last is shown")

    assert asked[0] == ["celery", "mail"]
    assert asked[1] == ["celery", *many][:MAX_QUEUES]
    assert shown(desks[0]) == {"celery": 5, "mail": 5}
    assert shown(desks[1]) == {"celery": 5}


def test_where_nobody_is_active_brokers_are_asked_seldom(
    databases: list[list[Tenant]], asked: list[list[str]]
) -> None:
    """Once at first; and each time while an outbox of it has something to do."""
    desk = desk_of(databases[0][0], "amqp://a", "celery")
    queues = Queues(lambda: [desk])

    assert [len(queues._due(now)) for now in (0.0, 30.0, 119.0)] == [1, 0, 0]
    assert [len(queues._due(now)) for now in (120.0, 150.0)] == [1, 0]
    desk.active = True
    assert [len(queues._due(now)) for now in (180.0, 210.0)] == [1, 1]
    assert asked == []


def test_what_cannot_be_asked_is_not_shown(
    databases: list[list[Tenant]], asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known of a broker that went away is no longer."""
    desk = desk_of(databases[0][0], "amqp://a", "celery")
    desk.active = True
    with Queues(lambda: [desk], every=0.05):
        wait_until(lambda: shown(desk), DEADLINE, "the queue")

        def away(_: Settings, __: Sequence[str]) -> list[Depth]:
            raise BrokerLost("away")

        monkeypatch.setattr(module, "of", away)
        wait_until(lambda: not shown(desk), DEADLINE, "nothing is shown")
    assert len(asked) >= 1


def test_so_many_queues_are_shown_of_each(databases: list[list[Tenant]], broker: Broker) -> None:
    """Of one that sends to more, those with most of what waits."""
    tenant = databases[0][0]
    for number in range(MAX_ROUTES + 3):
        replace(tenant, queue=f"queue-{number}").commit(1 + (number == 0))
    desk = desk_of(tenant, broker.url)
    see_queues(desk)

    assert len(desk.queues) == MAX_ROUTES
    assert desk.queues[0] == "queue-0"
