"""Whatever of Celery publishes comes to a row, to the broker as before, or to a refusal.

The table of docs/from-plain-celery.md, a test for each line.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Task, beat, signature
from celery.backends.base import Backend
from celery.backends.cache import CacheBackend
from celery.events import event_exchange
from kombu import Connection as Broker
from kombu import Exchange, Queue

from celery_outbox import NoChannel, NoTransaction, UnsupportedOption
from tests.producer.conftest import Connection, Shop, Stored, make_shop

#: A task by its headers, as Celery's protocol 2 has them.
TASK: dict[str, Any] = {
    "task": "shop.add",
    "id": "made-by-hand",
    "eta": "2040-01-01T00:00:00+00:00",
    "expires": None,
}


@pytest.fixture
def shop(plain_broker: str) -> Shop:
    """An app with a broker that could be reached."""
    return make_shop(plain_broker)


@pytest.fixture
def arrived(plain_broker: str) -> Callable[[], list[Any]]:
    """Take what waits at the broker."""

    def take() -> list[Any]:
        with Broker(plain_broker) as broker:
            queue = broker.SimpleQueue("celery")
            messages = []
            while queue.qsize():
                messages.append(queue.get(timeout=1))
                messages[-1].ack()
            return [message.payload for message in messages]

    return take


@pytest.fixture
def joined(shop: Shop, connection: Connection) -> Iterator[None]:
    """Everything happens in a transaction, which commits."""
    with connection, shop.app.outbox.using(connection):
        yield


@pytest.mark.parametrize("acquire", ["producer_or_acquire", "default_producer"])
@pytest.mark.parametrize("options", [{}, {"retry": True, "retry_policy": {"max_retries": 1}}])
def test_the_apps_producer(
    shop: Shop,
    connection: Connection,
    stored: Stored,
    arrived: Any,
    acquire: str,
    options: dict[str, Any],
) -> None:
    """What is published with it is a row, of the transaction in force."""
    queue = Queue("letters")
    with connection, shop.app.outbox.using(connection):
        with getattr(shop.app, acquire)() as producer:
            producer.publish({"a": 1}, "celery", priority=3, declare=[queue], **options)
            producer.publish([2], exchange=Exchange("news", "fanout"))
            with pytest.raises(UnsupportedOption, match="x="):
                producer.publish([2], routing_key="celery", x="y")
        with shop.app.producer_or_acquire() as producer:
            producer.publish([3], routing_key="celery", expiration=0)
        assert stored.rows() == []
    first, second, third = stored.rows()

    assert (first.routing_key, first.properties["priority"]) == ("celery", 3)
    assert first.declare[0]["name"] == "letters"
    assert bytes(first.body) == b'{"a": 1}'
    assert (second.exchange, second.mandatory) == ("news", False)
    assert third.properties["expiration"] == "0"
    assert arrived() == []


def test_the_apps_producer_without_a_transaction(shop: Shop) -> None:
    """It refuses as a task's send does."""
    with shop.app.producer_or_acquire() as producer, pytest.raises(NoTransaction, match="celery"):
        producer.publish({"a": 1}, routing_key="celery")


@pytest.mark.usefixtures("joined")
def test_a_task_made_by_hand(shop: Shop, connection: Connection, stored: Stored) -> None:
    """Published with the app's producer it is known as that task, with its id and its time."""
    with shop.app.producer_or_acquire() as producer:
        producer.publish([[1, 2], {}, {}], routing_key="celery", headers=TASK)
    connection.commit()
    (row,) = stored.rows()

    assert (row.task, row.message_id) == ("shop.add", "made-by-hand")
    assert row.available_at.year == 2040
    assert "message_id" not in row.properties


def test_a_producer_of_the_outbox_and_another(
    shop: Shop, connection: Connection, stored: Stored, arrived: Any
) -> None:
    """`app.amqp.send_task_message` stores with the first, and refuses the second."""
    amqp = shop.app.amqp
    message = amqp.create_task_message("an-id", "shop.add", (1, 2), {})
    with connection, shop.app.outbox.using(connection):
        with shop.app.producer_or_acquire() as producer:
            amqp.send_task_message(producer, "shop.add", message)
        with (
            shop.app.producer_pool.acquire(block=True) as producer,
            pytest.raises(UnsupportedOption, match="producer="),
        ):
            amqp.send_task_message(producer, "shop.add", message)

    assert [row.message_id for row in stored.rows()] == ["an-id"]
    assert arrived() == []


CONNECTED: dict[str, Callable[[Any], Any]] = {
    "producer_pool": lambda app: app.producer_pool.acquire(block=True),
    "amqp.producer_pool": lambda app: app.amqp.producer_pool.acquire(block=True),
    "amqp.Producer": lambda app: app.amqp.Producer(app.connection_for_write()),
    "pool": lambda app: app.amqp.Producer(app.pool.acquire(block=True)),
}


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("way", CONNECTED)
def test_a_connection_to_the_broker(shop: Shop, stored: Stored, arrived: Any, way: str) -> None:
    """Whoever takes one publishes as before: at once, and in no transaction."""
    with CONNECTED[way](shop.app) as producer:
        producer.publish([way], routing_key="celery", declare=[Queue("celery")])

    assert arrived() == [[way]]
    assert stored.rows() == []


DECLARING: dict[str, Callable[[Any], object]] = {
    "declare": lambda producer: Queue("letters")(producer.channel).declare(),
    "maybe_declare": lambda producer: producer.maybe_declare(Queue("letters")),
    "channel": lambda producer: producer.channel.queue_declare("letters"),
}


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("way", DECLARING)
def test_no_channel(shop: Shop, way: str) -> None:
    """The app's producer has none, and says what to do instead."""
    with shop.app.producer_or_acquire() as producer, pytest.raises(NoChannel, match="declare="):
        DECLARING[way](producer)


def heard(shop: Shop, exchange: Exchange, act: Callable[[], object]) -> list[Any]:
    """Do something, and return what reached an exchange through it."""
    bodies: list[Any] = []
    with shop.app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        queue = Queue("", exchange, "#", exclusive=True)(channel)
        queue.declare()
        act()
        while message := queue.get(no_ack=True):
            bodies.append(message.payload)
    return bodies


def to_workers(shop: Shop) -> Exchange:
    """Return the exchange of remote control."""
    control: Any = shop.app.control
    exchange: Exchange = control.mailbox.exchange
    return exchange


@pytest.mark.usefixtures("joined")
def test_remote_control(shop: Shop, stored: Stored) -> None:
    """`control`, and so revoke and inspect, speak to the workers at once."""

    def act() -> None:
        shop.app.control.broadcast("shutdown")
        shop.app.AsyncResult("x").revoke()

    bodies = heard(shop, to_workers(shop), act)

    assert [body["method"] for body in bodies] == ["shutdown", "revoke"]
    assert stored.rows() == []


@pytest.mark.usefixtures("joined")
def test_an_election(shop: Shop, stored: Stored) -> None:
    """It is remote control too: `Signature.election` worked with no broker connection of ours."""
    (body,) = heard(shop, to_workers(shop), lambda: shop.add.s(1, 2).election())

    assert body["method"] == "election"
    assert stored.rows() == []


@pytest.mark.usefixtures("joined")
def test_events(shop: Shop) -> None:
    """`app.events` publishes at once."""

    def act() -> None:
        with shop.app.events.default_dispatcher() as dispatcher:
            dispatcher.send("shop-opened")

    (body,) = heard(shop, event_exchange, act)
    assert body["type"] == "shop-opened"


def test_no_event_of_a_send(connection: Connection, plain_broker: str) -> None:
    """`task_send_sent_event` has no effect: an event about a rolled back task would be a lie."""
    shop = make_shop(plain_broker, task_send_sent_event=True)

    def act() -> None:
        with shop.app.outbox.using(connection):
            shop.add.delay(1, 2)

    assert heard(shop, event_exchange, act) == []


def test_reply_queue_of_rpc(
    plain_broker: str, connection: Connection, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue that a worker answers to travels with the row, where an answer is wanted."""
    shop = make_shop(plain_broker, result_backend="rpc://")
    with connection, shop.app.outbox.using(connection):
        shop.add.delay(1, 2)
        shop.add.apply_async((1, 2), ignore_result=True)
        # A worker has its own: what its tasks send is read by nobody there.
        monkeypatch.setattr("celery._state._task_join_will_block", True)
        shop.add.delay(1, 2)
    replies = [[each["name"] for each in row.declare] for row in stored.rows()]

    assert replies == [["celery", shop.app.thread_oid], ["celery"], ["celery"]]
    described = stored.rows()[0].declare[1]
    assert described["expires"] == 86400
    assert described["auto_delete"] is True


class Noting(CacheBackend):
    """A backend of one's own, which notes what was sent."""

    def on_task_call(self, producer: Any, task_id: str) -> Any:  # noqa: ARG002 - Celery's
        """Note it."""
        self.store_result(task_id, None, "SENT")
        return {}


def test_a_backend_of_ones_own(plain_broker: str, connection: Connection) -> None:
    """What it does as a task is sent is done."""
    shop = make_shop(plain_broker, result_backend=f"{__name__}:Noting+memory://")
    with connection, shop.app.outbox.using(connection):
        result = shop.add.delay(1, 2)

    assert result.state == "SENT"


class Bare(Backend):
    """A backend with nothing but what is abstract in Celery's."""

    def store_result(self, *_: Any, **__: Any) -> None:
        """Forget it."""


def test_a_backend_that_waits_for_nothing(
    plain_broker: str, connection: Connection, stored: Stored
) -> None:
    """One without the mixin for waiting does for a send."""
    shop = make_shop(plain_broker, result_backend=f"{__name__}:Bare")
    with connection, shop.app.outbox.using(connection):
        shop.add.delay(1, 2)

    assert stored.args() == [1]


def test_a_scheduler_without_its_service(trap: str, database: str, stored: Stored) -> None:
    """Whoever runs beat's Scheduler: what is due becomes a row."""
    entries = {"tick": {"task": "shop.add", "schedule": 0.01, "args": (1, 0)}}
    shop = make_shop(trap, outbox_database_url=database, beat_schedule=entries)
    scheduler = beat.Scheduler(shop.app)
    scheduler.setup_schedule()
    entry = scheduler.schedule["tick"]
    scheduler.apply_entry(entry, producer=scheduler.producer)

    assert stored.args() == [1]


def test_what_watches_a_send(shop: Shop) -> None:
    """Sentry and others look at the producer's connection: it names the transport."""
    producer = shop.app.outbox.producer

    assert producer.connection.transport.driver_type == "memory"
    assert producer.supports_batch_publish is False


def test_a_signature_of_another_app(shop: Shop, connection: Connection, stored: Stored) -> None:
    """A signature goes where its app says."""
    with connection, shop.app.outbox.using(connection):
        signature("shop.add", (1, 2), app=shop.app).delay()

    assert stored.args() == [1]


def test_a_task_of_no_module(plain_broker: str, connection: Connection, stored: Stored) -> None:
    """One that was made where there is none, as by exec(), is sent as any other."""
    shop = make_shop(plain_broker)
    names: dict[str, Any] = {"app": shop.app}
    exec("@app.task(name='shop.nowhere', shared=False)\ndef nowhere() -> None: ...", names)
    with connection, shop.app.outbox.using(connection):
        names["nowhere"].delay()

    assert [row.task for row in stored.rows()] == ["shop.nowhere"]


@pytest.mark.parametrize("package", ["celery_singleton", "celery_once"])
def test_a_lock_that_outlives_a_rollback(
    plain_broker: str, connection: Connection, caplog: pytest.LogCaptureFixture, package: str
) -> None:
    """Tasks that lock before they are sent are warned of, once, with what to use instead."""
    shop = make_shop(plain_broker)
    locking = type("Locking", (Task,), {"__module__": f"{package}.task"})

    @shop.app.task(base=locking, name="shop.once", shared=False)
    def once() -> None: ...

    task: Any = once
    with shop.app.outbox.using(connection):
        shop.add.delay(1, 2)
        task.delay()
        task.delay()
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]

    assert [text for text in warnings if f"shop.once is a task of {package}" in text] == warnings
    assert len(warnings) == 1
    assert "dedup_key" in warnings[0]
