"""What seats have left is kept for those it suits, not for long, and never too much of it."""

from typing import Any, cast

import pytest

from outbox_relay.broker.publisher import Publisher
from outbox_relay.configuration import from_environment
from outbox_relay.core.message import NOTHING, Outcomes
from outbox_relay.errors import BrokerLost
from outbox_relay.loop.left import Left
from outbox_relay.many import spares as module
from outbox_relay.many.spares import KEPT, MAX_PUBLISHERS, MAX_SESSIONS, TEND_EVERY, Spares
from outbox_relay.postgres.database import BoundedConnection
from outbox_relay.settings import Settings
from tests.fixtures.clock import Clock


class Open:
    """A session or a publisher, as far as it is kept."""

    def __init__(self) -> None:
        self.closed = self.lost = False
        self.spotless = True
        self.polled = 0

    def poll(self, _: float) -> Outcomes:
        """Nothing, unless the broker is gone."""
        self.polled += 1
        if self.lost:
            raise BrokerLost("gone")
        return NOTHING

    def close(self) -> None:
        """It is not kept any more."""
        self.closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the spares."""
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def spares(clock: Clock) -> Spares:
    """Nothing yet."""
    return Spares()


def settings(database: str = "db", broker: str = "amqp://mq", **variables: str) -> Settings:
    """An outbox' own."""
    urls = {"OUTBOX_DATABASE_URL": f"host={database}", "OUTBOX_BROKER_URL": broker}
    return from_environment({**urls, **variables})


def left(session: Open | None = None, publisher: Open | None = None) -> Left:
    """What a seat leaves."""
    return Left(cast(BoundedConnection, session), cast(Publisher, publisher))


def taken(spares: Spares, of: Settings) -> tuple[Any, Any]:
    """What a seat finds."""
    found = spares.take(of)
    return found.session, found.publisher


def test_any_outbox_of_the_database_and_the_broker_goes_on_with_it(spares: Spares) -> None:
    """Once; whatever its schema is called."""
    session, publisher = Open(), Open()
    spares.put(settings(OUTBOX_SCHEMA="one"), left(session, publisher))

    assert taken(spares, settings(OUTBOX_SCHEMA="two")) == (session, publisher)
    assert taken(spares, settings(OUTBOX_SCHEMA="two")) == (None, None)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (settings(database="elsewhere"), (False, True)),
        (settings(broker="amqp://elsewhere"), (True, False)),
        (settings(OUTBOX_DECLARE="never"), (True, False)),
        (settings(OUTBOX_CONFIRM_TIMEOUT="7s"), (True, False)),
        (settings(OUTBOX_ALLOW_RESERVED="user_id"), (True, False)),
        (settings(OUTBOX_RETRY_DELAY="7s"), (True, True)),
    ],
)
def test_it_suits_only_those_that_are_alike(
    spares: Spares, other: Settings, found: tuple[bool, bool]
) -> None:
    """A publisher does as the settings say that it was opened with."""
    spares.put(settings(), left(Open(), Open()))

    session, publisher = taken(spares, other)
    assert (session is not None, publisher is not None) == found


def test_of_several_brokers_no_publisher_is_kept(spares: Spares) -> None:
    """Suspects go to the broker that the outbox' own last publisher had reached."""
    publisher, of = Open(), settings(broker="amqp://a;amqp://b")
    spares.put(of, left(publisher=publisher))

    assert publisher.closed
    assert taken(spares, of) == (None, None)


def test_nothing_is_kept_for_long(spares: Spares, clock: Clock) -> None:
    """And publishers keep their heartbeat until then."""
    session, publisher = Open(), Open()
    spares.put(settings(), left(session, publisher))
    for _ in range(int(KEPT / TEND_EVERY)):
        clock.now += TEND_EVERY
        spares.tend(9)
    assert not any(each.closed for each in (session, publisher))
    assert publisher.polled > KEPT / TEND_EVERY / 2
    clock.now += TEND_EVERY
    spares.tend(9)

    assert session.closed
    assert publisher.closed


@pytest.mark.parametrize("change", [{"lost": True}, {"spotless": False}])
def test_a_publisher_that_is_not_what_it_was_is_closed(
    spares: Spares, clock: Clock, change: dict[str, bool]
) -> None:
    """Its broker went away, or has an alarm."""
    publisher = Open()
    spares.put(settings(), left(publisher=publisher))
    vars(publisher).update(change)
    clock.now += TEND_EVERY
    spares.tend(9)

    assert publisher.closed
    assert taken(spares, settings()) == (None, None)


def test_the_oldest_make_room(spares: Spares, clock: Clock) -> None:
    """So many of a database, so many publishers, and no more sessions than there is room for."""
    sessions, publishers = [Open() for _ in range(9)], [Open() for _ in range(2 * MAX_PUBLISHERS)]
    for session in sessions[:5]:
        spares.put(settings(), left(session))
    assert [session.closed for session in sessions[:5]] == [True] * (5 - MAX_SESSIONS) + [
        False
    ] * MAX_SESSIONS

    for number, session in enumerate(sessions[5:]):
        spares.put(settings(f"other-{number}"), left(session))
    spares.tend(3)
    assert [session.closed for session in sessions] == [True] * 6 + [False] * 3
    spares.tend(-1)
    assert all(session.closed for session in sessions)

    for publisher in publishers:
        spares.put(settings(), left(publisher=publisher))
    assert sum(publisher.closed for publisher in publishers) == MAX_PUBLISHERS
    assert not publishers[-1].closed
    spares.close()
    assert all(publisher.closed for publisher in publishers)
