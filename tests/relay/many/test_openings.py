"""A seat goes on with what others have left; what does not work any more is replaced."""

from collections.abc import Callable, Iterator

import psycopg
import pytest

from outbox_relay.broker.publisher import Publisher
from outbox_relay.broker.registry import publisher_factory
from outbox_relay.configuration import from_environment
from outbox_relay.errors import BrokerLost
from outbox_relay.loop.left import NOTHING, Left, leave
from outbox_relay.many.openings import Openings
from outbox_relay.settings import Settings
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import wait_until

DEADLINE = 30.0

Open = Callable[[Left], Openings]


@pytest.fixture
def settings(database: str, broker: Broker) -> Settings:
    """Those of an outbox."""
    urls = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}
    return from_environment(urls)


@pytest.fixture
def begin(settings: Settings) -> Iterator[Open]:
    """Begin with what others have left."""
    begun: list[Openings] = []

    def begin(left: Left) -> Openings:
        begun.append(Openings(settings, publisher_factory(settings)))
        begun[-1].go_on_with(left)
        begun[-1].begin()
        return begun[-1]

    yield begin
    for openings in begun:
        openings.close()


def left_of(openings: Openings) -> Left:
    """What a relay leaves that has opened both."""
    left = leave(openings.store(), openings.publisher())
    assert left.session is not None
    assert left.publisher is not None
    return left


def test_what_works_is_gone_on_with(begin: Open) -> None:
    """Once each; afterwards others are opened."""
    left = left_of(begin(NOTHING))
    openings = begin(left)
    again = left_of(openings)
    assert again == left

    for other in (openings.publisher(), openings.publisher(for_suspects=True)):
        assert other is not left.publisher
        other.close()
    store = openings.store()
    assert store.leave() is not left.session
    store.close()
    again.close()


def test_what_has_ended_is_replaced(begin: Open, database: str, broker: Broker) -> None:
    """Both servers have cut the connections that were left."""
    left = left_of(begin(NOTHING))
    assert left.session is not None
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [left.session.info.backend_pid])
    broker.ctl("close_all_connections", "a test")
    wait_until(lambda: _is_lost(left.publisher), DEADLINE, "the connection is closed")
    openings = begin(left)
    other_left = left_of(openings)

    assert other_left.session is not left.session
    assert other_left.publisher is not left.publisher
    other_left.close()


def test_a_broker_that_is_away_is_told_when_it_is_asked_for(database: str) -> None:
    """The database is reached meanwhile."""
    nowhere = "amqp://guest:guest@127.0.0.1:1//"
    settings = from_environment({"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": nowhere})
    openings = Openings(settings, publisher_factory(settings))
    openings.begin()
    openings.store().close()

    with pytest.raises(BrokerLost):
        openings.publisher()
    openings.close()


def test_what_nobody_asks_for_is_closed(begin: Open, broker: Broker) -> None:
    """A seat ends before it has reached its servers."""
    left = left_of(begin(NOTHING))
    begin(left).close()
    begin(NOTHING).close()

    assert left.session is not None
    assert left.session.closed
    wait_until(lambda: not _connected(broker), DEADLINE, "no connection to the broker")


def _connected(broker: Broker) -> bool:
    return broker.vhost in broker.node.ctl("list_connections", "-q", "vhost")


def _is_lost(publisher: Publisher | None) -> bool:
    assert publisher is not None
    try:
        publisher.poll(0)
    except BrokerLost:
        return True
    return False
