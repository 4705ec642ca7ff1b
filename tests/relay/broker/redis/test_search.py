"""A message is found by its id wherever a Redis has it, and nowhere else."""

from typing import Any

import pytest
from kombu import Connection, Queue
from redis import Redis

from outbox_relay.broker.redis import search as module
from outbox_relay.broker.redis.search import search
from outbox_relay.core.place import Bounds, Lying, Place, Search
from outbox_relay.errors import BrokerLost
from tests.fixtures.valkey import OwnValkey

QUEUES = ("celery", "mail")


def put(url: str, *ids: str, queue: str = "celery", **options: Any) -> None:
    """As kombu puts messages there."""
    with Connection(url, transport_options=options.pop("transport_options", {})) as connection:
        for id in ids:
            connection.Producer().publish(
                "x", routing_key=queue, headers={"id": id}, declare=[Queue(queue)], **options
            )


def look(url: str, *ids: str, **options: Any) -> Search:
    """Search these two queues."""
    return search(url, options, QUEUES, ids, Bounds())


def test_in_its_list_whatever_its_priority(valkey_url: str) -> None:
    """Each queue has a list for every step."""
    put(valkey_url, "a", "b")
    put(valkey_url, "c", priority=9)
    put(valkey_url, "d", queue="mail")

    assert look(valkey_url, "a", "c", "d", "lost") == Search(
        {
            "a": Lying(Place.QUEUE, "celery"),
            "c": Lying(Place.QUEUE, "celery"),
            "d": Lying(Place.QUEUE, "mail"),
        },
        complete=True,
        read=4,
    )


def test_with_a_worker(valkey_url: str) -> None:
    """What it has not acknowledged is noted in Redis, whether the worker lives or not."""
    put(valkey_url, "a", "b")
    with Connection(valkey_url) as connection:
        taken = connection.default_channel.basic_get("celery")  # type: ignore[attr-defined]  # kombu's virtual channel
        assert taken.headers["id"] == "a"

        found = look(valkey_url, "a", "b").found
        taken.ack()
        taken.channel.qos.ack(taken.delivery_tag)
        assert look(valkey_url, "a").found == {}

    assert found == {"a": Lying(Place.UNACKNOWLEDGED), "b": Lying(Place.QUEUE, "celery")}


def test_among_the_dead_letters(valkey_url: str) -> None:
    """Where workers put what they cannot begin."""
    put(valkey_url, "a", queue="celery.dead")

    assert look(valkey_url, "a").found == {"a": Lying(Place.DEAD_LETTERS, "celery.dead")}


def test_under_a_prefix(valkey_url: str) -> None:
    """As the workers' transport options have it."""
    put(valkey_url, "a", transport_options={"global_keyprefix": "shop:"})

    assert look(valkey_url, "a", global_keyprefix="shop:").found == {
        "a": Lying(Place.QUEUE, "celery")
    }
    assert look(valkey_url, "a").found == {}


def test_long_lists_are_read_in_portions(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message once, also at the edges; beyond the limit nothing is said to be gone."""
    monkeypatch.setattr(module, "PORTION", 3)
    ids = [str(n) for n in range(10)]
    put(valkey_url, *ids)

    assert look(valkey_url, *ids) == Search(
        {id: Lying(Place.QUEUE, "celery") for id in ids}, complete=True, read=10
    )

    found = search(valkey_url, {}, QUEUES, ids, Bounds(messages=4))
    assert not found.complete
    assert (len(found.found), found.read) == (6, 6)
    found = search(valkey_url, {}, QUEUES, ids, Bounds(seconds=0.0))
    assert found == Search({}, complete=False, read=0)


def test_what_is_no_message_harms_nothing(valkey_url: str) -> None:
    """Other programs write to the same server; a key of another type cannot be read."""
    put(valkey_url, "a")
    with Redis.from_url(valkey_url) as client:
        client.lpush("celery", "no json", "[1]", '"text"', '{"headers": 1, "properties": []}')
        client.hset("unacked", mapping={"1": "no json", "2": "[]", "3": '["x"]', "4": "{}"})
        client.set("mail", "x")

    assert look(valkey_url, "a") == Search(
        {"a": Lying(Place.QUEUE, "celery")}, complete=False, read=13
    )


def test_a_server_that_is_away(own_valkey: OwnValkey) -> None:
    """Is not a queue that is empty."""
    server = own_valkey()
    server.kill()

    with pytest.raises(BrokerLost):
        look(server.url, "a")
