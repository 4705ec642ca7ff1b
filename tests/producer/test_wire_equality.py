"""The stored message equals, byte for byte, what plain Celery hands to py-amqp."""

import ast
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Producer, Queue
from kombu.common import Broadcast
from kombu.serialization import register
from kombu.transport.pyamqp import Channel
from kombu.utils.json import loads

from celery_outbox import Message, OutboxCelery
from celery_outbox.capture.channel import LazyConnection
from celery_outbox.dispatch import dispatch_of
from celery_outbox.statements.commands import Outcome

NOW = datetime(2029, 12, 1, tzinfo=UTC)
LATER = datetime(2030, 1, 1, tzinfo=UTC)

CONFIGURATION = {
    "task_publish_retry": False,  # the recording channel has no connection to try again
    "accept_content": ["json", "pickle", "latin"],
    "task_queues": [
        Queue("celery", Exchange("celery"), "celery"),
        Queue("letters", Exchange("post", "topic"), "letter.#"),
        Queue(
            "urgent",
            Exchange("urgent"),
            "urgent",
            max_priority=9,
            message_ttl=60.0,
            queue_arguments={"x-queue-type": "classic"},
        ),
        Queue("safe", Exchange("safe"), "safe", queue_arguments={"x-queue-type": "quorum"}),
        Broadcast("news"),
    ],
    "task_routes": {
        "shop.write": {"queue": "letters", "routing_key": "letter.to.anna"},
        "shop.express": {"queue": "urgent", "priority": 7},
        "shop.keep": {"queue": "safe"},
    },
}

register("latin", repr, ast.literal_eval, "text/x-python", "latin-1")

Send = Callable[[Celery], object]


def call(task: str = "shop.add", args: tuple[Any, ...] = (1, 2), **options: Any) -> Send:
    """Return a function that sends the task through an app, with ids that are always the same."""
    ids = {"task_id": "1111-2222", "root_id": "r", "parent_id": "p"}

    def send(app: Celery) -> object:
        return app.send_task(task, args, **{**ids, **options})

    return send


def with_links(app: Celery) -> object:
    """Send a task with a callback and an errback."""
    follow = app.signature("shop.add", (3,), task_id="x1")
    complain = app.signature("shop.complain", task_id="x2")
    return call(link=follow, link_error=complain)(app)


HEADERS = {
    "text": "é",
    "large": 2**40,
    "negative": -(2**31),
    "float": 1.5,
    "bytes": b"\xff",
    "ascii": b"plain",
    "time": LATER,
    "deep": {"list": [1, None, True, {"emoji": "\N{PILE OF POO}"}]},
}

SHAPES: dict[str, Send] = {
    "simple": call(),
    "keywords": call(args=(), kwargs={"x": 1, "y": "ü"}),
    "eta and expires": call(eta=LATER, expires=LATER),
    "countdown": call(countdown=10.5),
    "expires in seconds": call(expires=30),
    "time limits": call(time_limit=30, soft_time_limit=10.5),
    "priority": call(priority=5),
    "no priority": call(priority=None),
    "odd headers": call(headers=HEADERS),
    "gzip": call(args=("a" * 5000,), compression="gzip"),
    "pickle": call(args=(LATER, {1, 2}), serializer="pickle"),
    "text that is not UTF-8": call(args=("ü", 2), serializer="latin"),
    "times and decimals": call(args=(LATER, NOW.date())),
    "topic route": call("shop.write"),
    "priority route": call("shop.express"),
    "quorum route": call("shop.keep"),
    "queue": call(queue="made.up"),
    "broadcast": call(queue="news"),
    "exchange and routing key": call(exchange="elsewhere", routing_key="there"),
    "exchange object": call(exchange=Exchange("post", "topic"), routing_key="letter.x"),
    "transient": call(delivery_mode="transient"),
    "links": with_links,
    "what retry() passes on": call(retries=1, origin="gen1@elsewhere"),
    "stamps": call(stamped_headers=["who"], who=["me"]),
    "unregistered task": call("another.service.task", ({"deep": [1]},)),
    "properties": call(reply_to="rq", message_id="m-1", user_id="guest", app_id="a", type="t"),
    "shadow": call(shadow="shown as this"),
    "ignored result": call(ignore_result=True),
    "large": call(args=("z" * 300_000,)),
    "string id": call(task_id="order:42/invoice ✓"),
}


def prepared(app: Any) -> Any:
    """Fix what differs between two apps and two moments."""
    app.conf.update(CONFIGURATION)
    app.now = lambda: NOW
    app._local.oid = "the-oid"
    return app


class RecordingChannel:
    """As much of a py-amqp channel as publishing needs."""

    connection = None

    def __init__(self) -> None:
        self.published: list[Any] = []

    prepare_message: Any = Channel.prepare_message

    def basic_publish(self, message: Any, **where: Any) -> None:
        """Keep what would have gone out."""
        self.published.append((message, where))


class RecordingProducer(Producer):
    """kombu's producer, except that it notes what it would have declared."""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel, auto_declare=False)
        self.declared: list[Any] = []

    @property
    def connection(self) -> Any:
        """Nothing that connects."""
        return LazyConnection(None)

    def maybe_declare(self, entity: Any, *_: Any, **__: Any) -> bool:
        """Note the entity."""
        self.declared.append(entity)
        return True


def sent_by_celery(send: Send) -> tuple[Any, list[Any]]:
    """Return what plain Celery hands to py-amqp, and the entities it declares before."""
    channel = RecordingChannel()
    producer = RecordingProducer(channel)
    app: Any = prepared(Celery("plain", broker="amqp://", set_as_current=False))
    app.producer_or_acquire = lambda _=None: nullcontext(producer)
    send(app)
    return channel.published[0], producer.declared


def captured_by_us(send: Send) -> Message:
    """Return the row the same call makes."""
    app = prepared(OutboxCelery("ours", broker="amqp://", set_as_current=False))
    rows: list[Message] = []
    app.conf.outbox_database_url = "postgresql:///none"

    def carry_out(_: object, row: Message) -> Outcome:  # no database is needed
        rows.append(row)
        return Outcome(row)

    object.__setattr__(dispatch_of(app), "carry_out", carry_out)
    send(app)
    return rows[0]


def on_the_wire(row: Message) -> Any:
    """Return the py-amqp message a relay makes of a row."""
    properties = loads(row.properties)
    return RecordingChannel().prepare_message(
        row.body,
        properties.pop("priority", None),
        row.content_type,
        row.content_encoding,
        loads(row.headers),
        properties,
    )


def redeclared(described: dict[str, Any]) -> Queue | Exchange:
    """Return the entity a description stands for."""
    kind = described.pop("kind")
    if kind == "exchange":
        return Exchange(**described)
    return Queue(**{**described, "exchange": Exchange(**described.get("exchange", {}))})


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_what_celery_sends(shape: str) -> None:
    """Body, every header and property, exchange and routing key are the same bytes."""
    (plain, where), _ = sent_by_celery(SHAPES[shape])
    row = captured_by_us(SHAPES[shape])
    ours = on_the_wire(row)

    body = plain.body
    if isinstance(body, str):
        body = body.encode(plain.properties["content_encoding"])  # as py-amqp does
    assert (where["exchange"], where["routing_key"]) == (row.exchange, row.routing_key)
    assert body == ours.body
    assert plain._serialize_properties() == ours._serialize_properties()
    assert loads(row.properties).keys() <= {name for name, _ in ours.PROPERTIES}


@pytest.mark.parametrize("argument", ["a\0b", "half a pair \ud800"])
def test_odd_characters_in_an_argument(argument: str) -> None:
    """Only in the headers for people are characters escaped that Postgres cannot show."""
    (plain, _), _ = sent_by_celery(call(args=(argument,)))
    row = captured_by_us(call(args=(argument,)))
    repr_header = loads(row.headers)["argsrepr"]
    plain.properties["application_headers"]["argsrepr"] = repr_header

    assert repr_header.isprintable()
    assert row.body == plain.body.encode()
    assert plain._serialize_properties() == on_the_wire(row)._serialize_properties()


@pytest.mark.parametrize(
    "shape", sorted(SHAPES.keys() - {"exchange and routing key", "exchange object"})
)
def test_describes_what_celery_declares(shape: str) -> None:
    """Queues and exchanges made from the row are equal to those Celery would have declared."""
    _, declared = sent_by_celery(SHAPES[shape])
    row = captured_by_us(SHAPES[shape])

    assert [redeclared(entity) for entity in loads(row.declare)] == declared
