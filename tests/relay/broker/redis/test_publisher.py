"""Each message is settled by its own reply, and what a server cannot do now costs no message."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest
import redis

from outbox_relay.broker.redis.in_doubt import BatchInDoubt, InDoubt
from outbox_relay.core.message import Reason
from outbox_relay.errors import BrokerLost, SettingsError
from servers import Valkey
from tests.fixtures.waiting import wait_until
from tests.relay.broker.redis.conftest import Client, OpenPublisher, land, publish, waiting
from tests.relay.messages import a_message, messages


@contextmanager
def full(client: Client) -> Iterator[None]:
    """The server is out of memory for the length of a block."""
    client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")


def test_all_arrive_in_order(valkey: Valkey, client: Client, open_publisher: OpenPublisher) -> None:
    """A worker takes them in the order they were inserted, through any number of batches."""
    publisher = open_publisher(valkey.url)
    sent = [
        message._replace(properties=b'{"correlation_id": "%d"}' % message.id)
        for message in messages(1000)
    ]

    for start in range(0, len(sent), 100):
        assert publisher.publish(sent[start : start + 100]) == []
    assert publisher.in_flight_bytes == sum(message.size for message in sent)
    confirmed = land(publisher).confirmed

    assert confirmed == sent
    assert publisher.in_flight_bytes == 0
    arrived = [each["properties"]["correlation_id"] for each in waiting(client, "celery")]
    assert arrived == [str(message.id) for message in sent]


def test_priorities_have_lists_of_their_own(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """Each of kombu's steps, and what lies between and beyond them."""
    publisher = open_publisher(valkey.url)
    sent = [
        a_message(id=priority, properties=f'{{"priority": {priority}}}')
        for priority in (0, 2, 3, 5, 8, 9, 200)
    ]

    assert len(publish(publisher, sent).confirmed) == 7

    depths = {step: client.llen(f"celery\x06\x16{step}") for step in (3, 6, 9)}
    assert (client.llen("celery"), depths) == (2, {3: 2, 6: 1, 9: 2})


def test_celerys_transport_options_are_honoured(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """Prefix, separator and priority steps are what the workers are told they are."""
    options = {"global_keyprefix": "shop:", "sep": ":", "priority_steps": [0, 5]}
    publisher = open_publisher(valkey.url, **options)

    publish(publisher, [a_message(properties='{"priority": 6}')])

    assert client.llen("shop:celery:5") == 1
    assert all(key.startswith(b"shop:") for key in client.keys("*"))


def test_a_key_that_is_no_list_refuses_only_its_own_messages(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """The neighbours in the same transaction are confirmed."""
    client.set("taken", "by something else")
    good, bad = a_message(id=1), a_message(id=2, routing_key="taken")

    said = publish(open_publisher(valkey.url), [good, bad])

    assert said.confirmed == [good]
    assert [(r.message, r.reason) for r in said.refused] == [(bad, Reason.REJECTED)]


def test_a_server_full_from_the_start_is_waited_for(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """Connecting succeeds; the pause shows in `blocked`."""
    with full(client):
        publisher = open_publisher(valkey.url)
        assert publisher.blocked

    wait_until(lambda: publisher.poll(0.05) and not publisher.blocked, 10, "the end of the pause")


def test_a_replica_takes_no_messages(valkey: Valkey, open_publisher: OpenPublisher) -> None:
    """A server that becomes a replica is lost; a replica is no broker at all."""
    publisher = open_publisher(valkey.url)
    with redis.Redis.from_url(valkey.url) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")

    publisher.publish(messages(1))
    with pytest.raises(BrokerLost, match="READONLY"):
        wait_until(lambda: publisher.poll(0.1) and None, 10, "the loss")
    with pytest.raises(BrokerLost, match="READONLY"):
        open_publisher(valkey.url)


def test_what_had_arrived_is_remembered_through_another_loss(
    valkey: Valkey, open_publisher: OpenPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks in the call that found it out: found out again, and not sent twice."""
    arrived, other = messages(2)
    ids = (arrived.id, arrived.message_id)
    in_doubt = InDoubt()
    in_doubt.remember(b"marker", [BatchInDoubt(1, (ids,), set())])
    in_doubt.answered([[b"1"]], monotonic())
    publisher = open_publisher(valkey.url, in_doubt=in_doubt)

    def broken(data: bytes) -> None:
        raise BrokerLost(f"after {len(data)} bytes")

    monkeypatch.setattr(publisher._link, "send", broken)
    with pytest.raises(BrokerLost):
        publisher.publish([arrived, other])
    publisher.close()

    assert in_doubt.arrived(ids, monotonic())


def test_sentinel_needs_the_name_of_its_master(open_publisher: OpenPublisher) -> None:
    """The message names the variable in which to give it."""
    with pytest.raises(SettingsError, match=r"OUTBOX_BROKER_TRANSPORT_OPTIONS.*master_name"):
        open_publisher("sentinel://127.0.0.1:1")


def test_the_markers_disappear_by_themselves(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """And hold no more than what may be in doubt."""
    publisher = open_publisher(valkey.url)
    for message in messages(20):
        publish(publisher, [message])

    (marker,) = client.keys("outbox-relay.*")
    assert client.scard(marker) < 5
    assert 0 < client.ttl(marker) <= 86_400
