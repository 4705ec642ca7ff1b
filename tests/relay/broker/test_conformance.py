"""What every broker must do, whichever it is: written once, and tried on each in the registry.

What only one of them can do, or do wrong, is tried beside its package.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any

import pytest

from outbox_relay.broker.publisher import Publisher
from outbox_relay.broker.registry import BROKERS, publisher_factory
from outbox_relay.configuration import from_environment
from outbox_relay.core.message import Message, Outcomes, Reason
from outbox_relay.errors import BrokerLost
from tests.fixtures.waiting import wait_until
from tests.relay.broker.kinds import KINDS, Kind
from tests.relay.messages import a_message

DEADLINE = 30.0
Connect = Callable[..., Publisher]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Kind:
    """An empty server of each broker."""
    return KINDS[request.param](request)


@pytest.fixture
def connect(server: Kind) -> Iterator[Connect]:
    """Connect as a relay does: ``connect(url, for_suspects=True, OUTBOX_DECLARE="never")``."""
    opened: list[Publisher] = []

    def open_publisher(url: str = "", *, for_suspects: bool = False, **variables: str) -> Publisher:
        urls = {"OUTBOX_DATABASE_URL": "host=x", "OUTBOX_BROKER_URL": url or server.url}
        factory = publisher_factory(from_environment({**urls, **variables}))
        opened.append(factory(for_suspects=for_suspects))
        return opened[-1]

    yield open_publisher
    for publisher in opened:
        publisher.close()


def numbered(count: int, **columns: Any) -> list[Message]:
    """So many messages; each arrives with its number as the correlation id."""
    return [
        a_message(id=n, message_id=f"m{n}", properties=f'{{"correlation_id": "{n}"}}', **columns)
        for n in range(1, count + 1)
    ]


def land(publisher: Publisher) -> Outcomes:
    """Poll until nothing is in flight; everything that was returned meanwhile."""
    whole = Outcomes([], [], [])
    deadline = monotonic() + DEADLINE
    while publisher.in_flight:
        assert monotonic() < deadline, f"{publisher.in_flight} messages still in flight"
        some = publisher.poll(0.05)
        whole.confirmed.extend(some.confirmed)
        whole.refused.extend(some.refused)
        whole.latencies.extend(some.latencies)
    return whole


def publish(publisher: Publisher, sent: Sequence[Message]) -> Outcomes:
    """Publish, and wait for what becomes of each message."""
    refused = publisher.publish(sent)
    landed = land(publisher)
    return Outcomes(landed.confirmed, refused + landed.refused, landed.latencies)


def until_lost(publisher: Publisher) -> BrokerLost:
    """Poll until the publisher says that the broker is lost."""
    deadline = monotonic() + DEADLINE
    while monotonic() < deadline:
        try:
            publisher.poll(0.05)
        except BrokerLost as lost:
            return lost
    raise AssertionError("the connection held")


def reasons(outcomes: Outcomes) -> dict[int, Reason]:
    """Why each refused message was."""
    return {refusal.message.id: refusal.reason for refusal in outcomes.refused}


def declares(*entities: dict[str, Any]) -> str:
    """The `declare` column."""
    return json.dumps(entities)


def test_every_broker_of_the_registry_is_tried() -> None:
    """A third one is to bring a server of its kind."""
    assert KINDS.keys() == {broker.name for broker in BROKERS}


def test_what_is_confirmed_is_there_once_and_in_order(server: Kind, connect: Connect) -> None:
    """Each is confirmed once; what was published together arrives as it was given."""
    sent = numbered(2000)
    publisher = connect()

    outcomes = publish(publisher, sent)

    assert sorted(message.id for message in outcomes.confirmed) == [m.id for m in sent]
    assert outcomes.refused == []
    assert server.arrived() == [str(message.id) for message in sent]


def test_what_is_in_flight_is_counted(connect: Connect) -> None:
    """Messages and bytes, up to the confirm; each is in the latency of one batch."""
    sent = numbered(100)
    publisher = connect()

    assert publisher.publish(sent) == []
    assert publisher.in_flight == 100
    assert publisher.in_flight_bytes == sum(message.size for message in sent)
    outcomes = land(publisher)

    assert (publisher.in_flight, publisher.in_flight_bytes) == (0, 0)
    assert sum(count for _, count in outcomes.latencies) == 100


def test_with_nothing_to_do_nothing_happens(connect: Connect) -> None:
    """An idle relay polls all the time."""
    publisher = connect()

    assert publisher.publish([]) == []
    assert publisher.poll(0) == Outcomes([], [], [])
    assert (publisher.in_flight, publisher.blocked) == (0, False)


def test_what_reaches_no_queue_is_refused_and_its_neighbours_are_not(connect: Connect) -> None:
    """In the middle of a batch, whatever the server acknowledges."""
    nowhere = declares({"kind": "exchange", "name": "events", "type": "topic"})
    sent = [
        m._replace(exchange="events", routing_key="x", declare=nowhere) if m.id % 3 == 0 else m
        for m in numbered(30)
    ]

    outcomes = publish(connect(), sent)

    assert reasons(outcomes) == dict.fromkeys(range(3, 31, 3), Reason.UNROUTABLE)
    assert len(outcomes.confirmed) == 20


def test_a_message_that_may_reach_nobody_is_confirmed(connect: Connect) -> None:
    """A fanout without a queue is as it should be."""
    entity = {"kind": "exchange", "name": "news", "type": "fanout"}
    sent = numbered(1, exchange="news", mandatory=False, declare=declares(entity))

    assert publish(connect(), sent).confirmed == sent


def test_what_cannot_be_encoded_is_refused_at_once(server: Kind, connect: Connect) -> None:
    """By `publish` itself: it never was in flight, and its neighbours are."""
    good, bad, other = numbered(3)
    publisher = connect()

    refused = publisher.publish([good, bad._replace(headers=b"[]"), other])

    assert [(r.message.id, r.reason) for r in refused] == [(2, Reason.INVALID)]
    assert publisher.in_flight == 2
    assert {message.id for message in land(publisher).confirmed} == {1, 3}
    assert server.arrived() == ["1", "3"]


def test_what_is_too_large_is_refused_at_once(
    server: Kind, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says how large it is; the connection is none the worse."""
    good, large = numbered(2)
    large = a_message(**{**large._asdict(), **server.oversize(monkeypatch)})
    publisher = connect()

    outcomes = publish(publisher, [large, good])

    assert reasons(outcomes) == {2: Reason.INVALID}
    assert "bytes" in outcomes.refused[0].detail
    assert outcomes.confirmed == [good]


def test_a_large_body_arrives_whole(server: Kind, connect: Connect) -> None:
    """Between small ones."""
    sent = [m._replace(body=bytes(5 << 20)) if m.id == 2 else m for m in numbered(3)]

    assert len(publish(connect(), sent).confirmed) == 3
    assert server.arrived() == ["1", "2", "3"]


def test_what_is_missing_is_declared(server: Kind, connect: Connect) -> None:
    """Queue, exchange and binding, as the row says; the message goes there."""
    exchange = {"name": "shop", "type": "topic"}
    queue = {"kind": "queue", "name": "bills", "exchange": exchange, "routing_key": "bill.#"}
    sent = numbered(2, exchange="shop", routing_key="bill.new", declare=declares(queue))

    assert len(publish(connect(), sent).confirmed) == 2
    assert server.arrived("bills") == ["1", "2"]


def test_never_means_never(server: Kind, connect: Connect) -> None:
    """OUTBOX_DECLARE=never: nothing is made, and the message is refused."""
    exchange = {"name": "shop", "type": "topic"}
    queue = {"kind": "queue", "name": "bills", "exchange": exchange, "routing_key": "bill.#"}
    sent = numbered(1, exchange="shop", routing_key="bill.new", declare=declares(queue))

    outcomes = publish(connect(OUTBOX_DECLARE="never"), sent)

    assert reasons(outcomes) == {1: Reason.UNROUTABLE}
    assert not server.has("bills")


@pytest.mark.parametrize("declare", ["{", "5", '[{"kind": "table"}]', '[{"name": "q"}]'])
def test_a_declaration_that_cannot_be_read_harms_only_its_row(
    connect: Connect, declare: str
) -> None:
    """Its neighbours in the same batch are confirmed."""
    good, bad = numbered(2)

    outcomes = publish(connect(), [bad._replace(declare=declare), good])

    assert reasons(outcomes) == {2: Reason.INVALID}
    assert outcomes.confirmed == [good]


def test_a_missing_right_is_told_by_the_publisher_for_suspects(
    server: Kind, connect: Connect
) -> None:
    """It names the messages it is missing for, and harms no other."""
    with server.forbid() as url:
        publisher = connect(url, for_suspects=True)
        good, bad = numbered(2)

        assert publisher.max_suspects > 1
        outcomes = publish(publisher, [bad._replace(**server.to_private()), good])

    assert reasons(outcomes) == {2: Reason.FORBIDDEN}
    assert outcomes.confirmed == [good]
    assert server.arrived() == ["1"]


def test_a_pause_that_the_server_asks_for_is_waited_out(server: Kind, connect: Connect) -> None:
    """For longer than a confirm may take: the publisher is blocked, then all arrive, once."""
    publisher = connect(OUTBOX_CONFIRM_TIMEOUT="1s")
    began = monotonic()
    with server.full():
        assert publisher.publish(numbered(20)) == []
        wait_until(lambda: publisher.poll(0.05) and publisher.blocked, DEADLINE, "the pause")
        wait_until(lambda: publisher.poll(0.05) and monotonic() - began > 2, DEADLINE, "too long")
        assert publisher.in_flight == 20

    outcomes = land(publisher)

    assert len(outcomes.confirmed) == 20
    assert outcomes.refused == []
    assert sorted(map(int, server.arrived())) == list(range(1, 21))
    wait_until(lambda: publisher.poll(0.05) and not publisher.blocked, DEADLINE, "its end")


def test_a_silent_server_is_lost_and_what_was_in_flight_is_unconfirmed(
    server: Kind, connect: Connect
) -> None:
    """After the confirm timeout; nothing says that a message is poison."""
    publisher = connect(OUTBOX_CONFIRM_TIMEOUT="1s")
    sent = numbered(3)
    publish(publisher, sent)  # nothing is left to be declared
    with server.frozen():
        publisher.publish(sent)
        lost = until_lost(publisher)

        assert not lost.poison
        assert publisher.unconfirmed() == sent


def test_a_connection_that_the_server_closed_is_lost(server: Kind, connect: Connect) -> None:
    """Also while nothing is in flight; what is published then is not in flight either."""
    publisher = connect()
    server.disconnect()

    lost = until_lost(publisher)

    assert not lost.poison
    with pytest.raises(BrokerLost):
        publisher.publish(numbered(1))
    assert publisher.unconfirmed() == []


@pytest.mark.parametrize("for_suspects", [False, True])
def test_a_closed_publisher_leaves_no_connection(
    server: Kind, connect: Connect, for_suspects: bool
) -> None:
    """Whatever is in flight, at once."""
    publisher = connect(for_suspects=for_suspects)
    publisher.publish(numbered(1))
    wait_until(lambda: server.connections() > 0, DEADLINE, "a connection")

    publisher.close()

    wait_until(lambda: server.connections() == 0, DEADLINE, "no connection")


def test_a_wrong_password_is_an_outage_and_stays_secret(server: Kind, connect: Connect) -> None:
    """It may be rotated while we wait; it is in no message."""
    with pytest.raises(BrokerLost) as lost:
        connect(server.url.replace(server.password, "hunter2"))

    assert "hunter2" not in str(lost.value)
    assert not lost.value.poison


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:1"])
def test_nobody_there_is_an_outage_that_names_the_address(
    server: Kind, connect: Connect, address: str
) -> None:
    """Refused, or not to be found; the password in the URL is not told."""
    scheme = server.url.partition("://")[0]

    with pytest.raises(BrokerLost, match=re.escape(address)) as lost:
        connect(f"{scheme}://relay:hunter2@{address}/0")

    assert "hunter2" not in str(lost.value)
