"""Suspects between a real core and a real RabbitMQ: each gets its own verdict, and no other's."""

from collections.abc import Callable, Iterator
from threading import Event
from typing import cast

import pytest

from outbox_relay.broker.amqp.suspects import SuspectPublisher
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.broker.publisher import Publisher
from outbox_relay.core.claim import Fetched
from outbox_relay.core.message import Message, Parking, Reason
from outbox_relay.errors import BrokerLost
from outbox_relay.loop.quarantine import Quarantine
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import wait_until
from tests.relay.broker.amqp.test_suspects import DEADLINE, LETHAL, POISON
from tests.relay.core.test_decide import a_turn, answer, core
from tests.relay.messages import messages


class Trial:
    """A quarantine, the core it takes suspects from, and the verdicts."""

    def __init__(self, open_publisher: Callable[..., Publisher]) -> None:
        self.core = core(batch_size=500, window=4000)
        self.quarantine = Quarantine(open_publisher)
        self.cleared: list[int] = []
        self.parked: dict[int, Parking] = {}

    def suspect(self, rows: list[Message]) -> None:
        """Claim rows under suspicion."""
        turn = a_turn(self.core)
        rows = [m._replace(claim_id=turn.claim_id, suspicion=1) for m in rows]
        self.core.turned(turn, answer(*(m.id for m in rows)), 0.0)
        work = self.core.fetched(Fetched(rows, []), 0.0)
        assert (work.publish, work.refused) == ([], [])

    def step(self) -> None:
        """Move on, as a cycle does."""
        outcomes = self.quarantine.step(self.core, 0.0)
        self.core.confirmed(outcomes.confirmed, 0.0)
        self.cleared += [m.id for m in outcomes.confirmed]
        parkings = self.core.parkings(self.core.still_held(outcomes.refused))
        self.core.parked(parkings)
        self.parked |= {parking.message.id: parking for parking in parkings}

    def until_over(self) -> None:
        """Move on until nobody is held."""

        def over() -> bool:
            self.step()
            return not self.core.holding

        wait_until(over, DEADLINE, "every verdict")


@pytest.fixture
def trial(broker: Broker) -> Iterator[Trial]:
    """On the test's virtual host, where headers beyond the frame size are let through."""
    broker.declare("celery")

    def open_publisher(*, for_suspects: bool = False, elsewhere: bool = False) -> Publisher:
        assert for_suspects
        topology = Topology(broker.url, declare=True)
        publisher = SuspectPublisher(broker.url, topology, DEADLINE, reserved=frozenset())
        publisher._outbound._encoder._frame_max = 1 << 30
        return publisher

    trial = Trial(open_publisher)
    yield trial
    trial.quarantine.close()


def test_a_block_of_poison_among_good_ones(trial: Trial, broker: Broker) -> None:
    """Two hundred of five hundred: none of the good is sent twice, none of the bad spared."""
    trial.suspect([m._replace(**POISON) if 100 < m.id <= 300 else m for m in messages(500)])

    trial.until_over()

    assert sorted(trial.cleared) == [n for n in range(1, 501) if not 100 < n <= 300]
    assert broker.depth("celery") == 300
    assert {p.error.partition(":")[0] for p in trial.parked.values()} == {"rejected"}
    assert {p.attempts for p in trial.parked.values()} == {1}


def test_what_takes_the_connection_with_it_is_found_alone(trial: Trial) -> None:
    """Two such among forty: they are charged with an attempt, and nobody else is."""
    trial.suspect([m._replace(**LETHAL) if m.id in (7, 33) else m for m in messages(40)])

    trial.until_over()

    assert set(trial.cleared) == set(range(1, 41)) - {7, 33}
    assert {id_: p.attempts for id_, p in trial.parked.items()} == {7: 1, 33: 1}


def test_its_connection_is_there_while_it_is_needed(trial: Trial) -> None:
    """Nobody would keep up the heartbeat of an idle one; the next suspect finds another."""
    for _ in range(2):
        trial.suspect(messages(3))
        trial.until_over()
        trial.step()
        assert trial.quarantine._publisher is None

    assert len(trial.cleared) == 6


def test_nobody_waits_until_it_is_connected() -> None:
    """A step takes no time for it; a connection that comes too late is closed."""
    let, publisher = Event(), Closing()

    def open_late(*, for_suspects: bool = False, elsewhere: bool = False) -> Publisher:
        assert let.wait(DEADLINE)
        return cast("Publisher", publisher)

    trial = Trial(open_late)
    trial.suspect(messages(3))
    for _ in range(3):
        trial.step()
    assert trial.core.holding == 3
    assert not trial.quarantine.busy

    trial.quarantine.close()
    let.set()
    assert publisher.closed.wait(DEADLINE)


class Closing:
    """A publisher that is only closed."""

    def __init__(self) -> None:
        self.closed = Event()

    def close(self) -> None:
        """It was."""
        self.closed.set()


def test_without_a_connection_suspects_wait_and_pay_nothing() -> None:
    """The broker lets this user open no second one, say: that is no outage, and nobody's fault."""

    def refuse(*, for_suspects: bool = False, elsewhere: bool = False) -> Publisher:
        raise BrokerLost("530 NOT_ALLOWED: connection limit reached")

    trial = Trial(refuse)
    trial.suspect(messages(50))

    trial.until_over()

    assert trial.core.holding == 0
    assert {p.attempts for p in trial.parked.values()} == {0}
    assert {p.suspicion for p in trial.parked.values()} == {1}
    assert all("connection limit" in p.error for p in trial.parked.values())
    assert Reason.SUSPECTED in next(iter(trial.parked.values())).error


def test_a_core_without_suspects_opens_nothing() -> None:
    """A connection is opened when there is somebody to put on it."""
    trial = Trial(lambda **_: pytest.fail("a connection was opened"))

    trial.step()

    assert not trial.quarantine.busy
