"""A message reaches the queues that kombu would put it in; where there is none, we say so."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from kombu.utils.json import dumps

from outbox_relay.core.message import Reason
from servers import Valkey
from tests.fixtures.waiting import wait_until
from tests.relay.broker.redis.conftest import Client, OpenPublisher, publish, waiting
from tests.relay.messages import a_message

TOPIC = Exchange("events", "topic")
DIRECT = Exchange("orders", "direct")
NEWS = Exchange("news", "fanout")


@pytest.fixture
def worker(valkey: Valkey) -> Iterator[Connection]:
    """A kombu connection, as a worker has it."""
    with Connection(valkey.url) as connection:
        yield connection


def declared(*entities: Any) -> str:
    """A row's `declare` for these, with what matters here."""
    return dumps(
        [
            {
                "kind": "queue",
                "name": entity.name,
                "routing_key": entity.routing_key,
                "exchange": {"name": entity.exchange.name, "type": entity.exchange.type},
            }
            for entity in entities
        ]
    )


@pytest.mark.parametrize(
    ("routing_key", "queues"),
    [
        ("order.paid", {"all", "paid"}),
        ("order.lost", {"all", "orders"}),
        ("order.paid.late", {"all"}),
        ("refund.paid", {"all", "paid"}),
    ],
)
def test_topics_are_matched_as_kombu_matches_them(
    valkey: Valkey,
    client: Client,
    worker: Connection,
    open_publisher: OpenPublisher,
    routing_key: str,
    queues: set[str],
) -> None:
    """Bindings made by a worker are enough: the row declares nothing."""
    for name, binding in (("all", "#"), ("paid", "*.paid"), ("orders", "order.lost")):
        Queue(name, TOPIC, routing_key=binding)(worker.default_channel).declare()
    sent = a_message(exchange="events", routing_key=routing_key)

    assert publish(open_publisher(valkey.url), [sent]).confirmed == [sent]

    assert {name for name in ("all", "paid", "orders") if client.llen(name)} == queues


def test_what_a_row_declares_is_bound(
    valkey: Valkey, client: Client, worker: Connection, open_publisher: OpenPublisher
) -> None:
    """No worker has ever run; one that starts later finds message and binding as its own."""
    queue = Queue("bills", DIRECT, routing_key="bill")
    sent = a_message(exchange="orders", routing_key="bill", declare=declared(queue))

    assert publish(open_publisher(valkey.url), [sent]).confirmed == [sent]

    ours = client.smembers("_kombu.binding.orders")
    client.delete("_kombu.binding.orders")
    queue(worker.default_channel).declare()
    assert client.smembers("_kombu.binding.orders") == ours
    received = queue(worker.default_channel).get(no_ack=True)
    assert received is not None
    assert received.delivery_info == {"exchange": "orders", "routing_key": "bill"}
    assert received.payload == [[42], {}, {"callbacks": None}]


def test_bindings_that_vanish_are_made_again(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """The server was emptied while the publisher was connected."""
    queue = Queue("bills", DIRECT, routing_key="bill")
    sent = a_message(exchange="orders", routing_key="bill", declare=declared(queue))
    publisher = open_publisher(valkey.url)
    publish(publisher, [sent])
    client.flushall()

    def arrives_again() -> bool:
        publish(publisher, [sent])
        return bool(client.exists("_kombu.binding.orders"))

    wait_until(arrives_again, 10, "the binding")


@pytest.mark.parametrize(
    "columns",
    [
        {"exchange": "nowhere", "routing_key": "bill"},
        {"exchange": "orders", "routing_key": "unbound"},
        {"exchange": "events", "routing_key": "order.paid"},
        {"exchange": "", "routing_key": ""},
    ],
    ids=["no exchange", "no such key", "no matching pattern", "no queue meant"],
)
def test_what_no_queue_is_bound_for_comes_back(
    valkey: Valkey,
    client: Client,
    worker: Connection,
    open_publisher: OpenPublisher,
    columns: dict[str, str],
) -> None:
    """Kombu would drop it without a word."""
    Queue("bills", DIRECT, routing_key="bill")(worker.default_channel).declare()
    Queue("refunds", TOPIC, routing_key="refund.#")(worker.default_channel).declare()
    lost, good = a_message(id=1, **columns), a_message(id=2)

    said = publish(open_publisher(valkey.url), [lost, good])

    assert said.confirmed == [good]
    assert [(r.message, r.reason) for r in said.refused] == [(lost, Reason.UNROUTABLE)]


def test_without_leave_to_declare_nothing_is_bound(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """OUTBOX_DECLARE=never: a missing binding is the operator's to make."""
    queue = Queue("bills", DIRECT, routing_key="bill")
    sent = a_message(exchange="orders", routing_key="bill", declare=declared(queue))

    said = publish(open_publisher(valkey.url, declare=False), [sent])

    assert [refusal.reason for refusal in said.refused] == [Reason.UNROUTABLE]
    assert not client.exists("_kombu.binding.orders")


def test_what_cannot_be_declared_is_refused(valkey: Valkey, open_publisher: OpenPublisher) -> None:
    """A row whose `declare` nobody can read is a mistake in the row."""
    said = publish(open_publisher(valkey.url), [a_message(declare='[{"kind": "exchanges"}]')])

    assert [refusal.reason for refusal in said.refused] == [Reason.INVALID]


@pytest.mark.parametrize(
    "declare",
    [
        '[{"kind": "exchange", "name": "x", "type": ["fanout"]}]',
        '[{"kind": "exchange", "name": ["x"]}]',
        '[{"kind": "queue", "name": 5}]',
        '[{"kind": "queue", "name": "x", "routing_key": {}}]',
        '[{"kind": "queue", "name": "x", "bindings": [{"exchange": {"name": 7}}]}]',
        '[{"kind": "queue", "name": "x", "queue_arguments": 5}]',
        '[{"kind": "queue", "name": "x", "on_declared": 5}]',
        "[" * 5000 + "]" * 5000,
    ],
)
def test_whatever_a_declaration_provokes_is_its_rows_fault(
    valkey: Valkey, open_publisher: OpenPublisher, declare: str
) -> None:
    """It is refused with a reason that does not repeat it; the neighbours are sent."""
    bad, good = a_message(id=1, declare=declare), a_message(id=2)

    said = publish(open_publisher(valkey.url), [bad, good])

    assert said.confirmed == [good]
    (refusal,) = said.refused
    assert (refusal.message, refusal.reason) == (bad, Reason.INVALID)
    assert refusal.detail.startswith("declare cannot be ")
    assert len(refusal.detail) < 60


def test_an_exchange_that_only_exists_elsewhere_is_the_operators_choice(
    valkey: Valkey, open_publisher: OpenPublisher
) -> None:
    """A passive declaration finds nothing, and the message goes where it was going."""
    passive = '[{"kind": "exchange", "name": "x", "passive": true}]'
    sent = a_message(declare=passive)

    assert publish(open_publisher(valkey.url), [sent]).confirmed == [sent]


def test_bindings_that_are_none_hold_up_nobody_else(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """Somebody else's pattern where kombu keeps its own: it matches nothing, others do."""
    client.sadd("_kombu.binding.events", "\x06\x16(\x06\x16bills", "a.#\x06\x16^a$\x06\x16mails")
    lost, good = a_message(id=1, exchange="events"), a_message(id=2)
    sent = a_message(id=3, exchange="events", routing_key="a.b")

    said = publish(open_publisher(valkey.url), [lost, good, sent])

    assert said.confirmed == [good, sent]
    assert [(r.message, r.reason) for r in said.refused] == [(lost, Reason.UNROUTABLE)]
    assert len(waiting(client, "mails")) == 1


@pytest.mark.parametrize("described", ["by what it declares", "by not being mandatory"])
def test_a_broadcast_reaches_all_who_listen(
    valkey: Valkey, open_publisher: OpenPublisher, described: str
) -> None:
    """Two workers, each with a queue of its own."""
    queue = Queue("bcast.1", NEWS, routing_key="")
    columns: dict[str, Any] = {"exchange": "news", "routing_key": "flash", "mandatory": False}
    if described == "by what it declares":
        columns |= {"declare": declared(queue), "mandatory": True}
    heard: list[bytes] = []
    with Connection(valkey.url) as one, Connection(valkey.url) as two:
        for number, connection in enumerate((one, two)):
            own = Queue(f"bcast.{number}", NEWS, routing_key="flash", auto_delete=True)
            connection.Consumer(
                own, on_message=lambda m: heard.append(bytes(m.body)), no_ack=True
            ).consume()
        publisher = open_publisher(valkey.url)
        _listen(one, two)

        said = publish(publisher, [a_message(**columns)])

        assert said.refused == []
        wait_until(lambda: _listen(one, two) and len(heard) == 2, 10, "both copies")


def _listen(*connections: Connection) -> bool:
    """Let each hear one thing, if there is anything to hear."""
    for connection in connections:
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.1)
    return True


def test_a_key_prefix_covers_bindings_too(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """Several apps share a database, each in a space of its own."""
    queue = Queue("bills", DIRECT, routing_key="bill")
    sent = a_message(exchange="orders", routing_key="bill", declare=declared(queue))

    publish(open_publisher(valkey.url, global_keyprefix="shop:"), [sent])

    assert client.exists("shop:_kombu.binding.orders", "shop:bills") == 2
    assert len(waiting(client, "shop:bills")) == 1


def test_an_exchange_we_may_not_see_holds_up_nobody_else(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """A right that is missing, or a binding table that is none: one message waits, or dies."""
    client.execute_command(
        "ACL", "SETUSER", "relay", "on", ">secret", "+@all", "~celery", "~outbox-relay.*",
        "~_kombu.binding.broken"
    )  # fmt: skip
    client.set("_kombu.binding.broken", "by something else")
    queue = Queue("bills", DIRECT, routing_key="bill")
    hidden = a_message(id=1, exchange="orders", routing_key="bill", declare=declared(queue))
    broken, good = a_message(id=2, exchange="broken"), a_message(id=3)
    publisher = open_publisher(f"redis://relay:secret@127.0.0.1:{valkey.port}/0")

    said = publish(publisher, [hidden, broken, good])

    assert said.confirmed == [good]
    assert [(r.message, r.reason) for r in said.refused] == [
        (hidden, Reason.FORBIDDEN),
        (broken, Reason.REJECTED),
    ]
