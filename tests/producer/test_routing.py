"""Every eta is held in the outbox, for the destination it was sent to, whatever Celery rewrites."""

from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from celery import Celery
from kombu import Exchange, Queue

from celery_outbox import Message, OutboxCelery
from celery_outbox.decision import Destination, Origin
from celery_outbox.dispatch import Decision, dispatch_of
from celery_outbox.routing import DELIVERY

QUORUM = {"x-queue-type": "quorum"}
BY_TOPIC = Queue("q", Exchange("t", "topic"), "k", queue_arguments=QUORUM)
DELAYED = "0." * 26 + "1.0.k"

has_native_delay = pytest.mark.skipif(celery.VERSION < (5, 5), reason="came with Celery 5.5")


def send(app: OutboxCelery, **options: Any) -> Message:
    """Return the row that a send makes."""
    rows: list[Message] = []
    app.conf.outbox_database_url = "postgresql:///none"
    object.__setattr__(dispatch_of(app), "carry_out", lambda _, row: rows.append(row))
    app.send_task("any.task", (1,), **options)
    return rows[0]


@pytest.fixture
def app() -> OutboxCelery:
    """A producer's app with a quorum queue behind a topic exchange, and one behind a direct one."""
    queues = [BY_TOPIC, Queue("d", queue_arguments=QUORUM)]
    return OutboxCelery(
        "shop", broker="amqp://", set_as_current=False, changes={"task_queues": queues}
    )


@pytest.fixture(params=["countdown", "eta", "eta as text", "naive eta"])
def delay(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The ways to ask for a delay of 100 seconds."""
    eta = datetime.now(UTC) + timedelta(seconds=100)
    ways: dict[str, dict[str, Any]] = {
        "countdown": {"countdown": 100},
        "eta": {"eta": eta},
        "eta as text": {"eta": eta.isoformat()},
        "naive eta": {"eta": eta.replace(tzinfo=None)},
    }
    return ways[request.param]


@has_native_delay
def test_plain_celery_would_have_the_broker_delay(app: OutboxCelery) -> None:
    """What is prevented here is what Celery does: if it ever stops, this module can go."""
    plain = Celery(
        "shop", broker="amqp://", set_as_current=False, changes={"task_queues": [BY_TOPIC]}
    )
    seen: list[Any] = []
    amqp: Any = plain.amqp
    amqp.send_task_message = lambda _, __, ___, **options: seen.append(options["exchange"].name)
    plain.send_task("any.task", (1,), queue="q", countdown=100)

    assert seen == ["celery_delayed_27"]


def test_a_delayed_task_keeps_its_destination(app: OutboxCelery, delay: dict[str, Any]) -> None:
    """Exchange, routing key and the declared queue are those of the task without a delay."""
    at_once, later = send(app, queue="q"), send(app, queue="q", **delay)

    assert (later.exchange, later.routing_key) == ("t", "k")
    assert later.declare == at_once.declare != "[]"
    assert later.available_at is not None
    due_in = later.available_at - datetime.now(UTC)
    assert timedelta(seconds=90) < due_in <= timedelta(seconds=100)


@pytest.mark.parametrize("seconds", [0.001, 0.5, 0.999, 1, 1.5, 2, 10 * 365 * 86400])
def test_any_delay_will_do(app: OutboxCelery, seconds: float) -> None:
    """Celery's own delayed delivery raises below one second and has no bits for ten years."""
    row = send(app, queue="q", countdown=seconds)
    eta = send(app, queue="q", eta=datetime.now(UTC) + timedelta(seconds=seconds))

    for held in (row, eta):
        assert (held.exchange, held.routing_key) == ("t", "k")
        assert held.available_at is not None


def test_options_of_the_send_win(app: OutboxCelery) -> None:
    """A routing key or exchange of the call is kept, and a direct exchange is no different."""
    by_key = send(app, queue="q", routing_key="other", countdown=100)
    by_exchange = send(app, exchange="elsewhere", routing_key="there", countdown=100)
    direct = send(app, queue="d", countdown=100)

    assert (by_key.exchange, by_key.routing_key) == ("t", "other")
    assert (by_exchange.exchange, by_exchange.routing_key) == ("elsewhere", "there")
    assert (direct.exchange, direct.routing_key) == ("", "d")


def test_routes_apply(app: OutboxCelery) -> None:
    """A delayed task goes where task_routes say."""
    app.conf.task_routes = {"any.*": {"queue": "q", "routing_key": "k.routed"}}

    assert send(app, countdown=100).routing_key == "k.routed"


def test_a_retry_goes_back_to_the_queue_it_came_from(app: OutboxCelery) -> None:
    """Celery itself takes the routing key of the default queue, here another one's, for a delay."""
    app.conf.task_queues = [*app.conf.task_queues, Queue("other", BY_TOPIC.exchange, "o")]
    app.conf.task_default_queue = "other"
    came_by = {"exchange": "t", "routing_key": "k"}

    for delay in ({}, {"countdown": 100}):
        row = send(app, **came_by, **delay)
        assert (row.exchange, row.routing_key) == ("t", "k")


@pytest.mark.parametrize("level", [0, 1, 7])
def test_a_retry_of_what_a_broker_delayed_goes_to_the_queue_itself(
    app: OutboxCelery, level: int
) -> None:
    """Its delivery names the last exchange of the delay and a key with the old one's digits."""
    came_by = {"exchange": f"celery_delayed_{level}", "routing_key": DELAYED}

    for delay in ({}, {"countdown": 0.1}, {"countdown": 100}):
        row = send(app, **came_by, **delay)
        assert (row.exchange, row.routing_key) == ("t", "k")


def test_a_retry_for_a_queue_unknown_here_goes_the_way_it_came(app: OutboxCelery) -> None:
    """Without its delay: the exchange behind all delays leads to whichever queue is bound there."""
    came_by = {"exchange": DELIVERY, "routing_key": DELAYED.replace("k", "elsewhere")}
    row = send(app, **came_by, countdown=100)

    assert (row.exchange, row.routing_key) == (DELIVERY, "elsewhere")
    assert row.available_at is not None


@has_native_delay
def test_what_a_worker_sends_directly_goes_as_celery_sends_it(app: OutboxCelery) -> None:
    """Without an outbox to hold it, the broker delays it, unless that is less than a second."""
    directly = Decision(Origin.CONTINUATION, Destination.BROKER, None, None)
    object.__setattr__(dispatch_of(app), "decide", lambda *_: directly)
    sent: list[tuple[Any, Any]] = []
    app.amqp.send_task_message.__dict__["_publish"] = lambda _, __, ___, **options: sent.append(
        (getattr(options.get("exchange"), "name", options.get("exchange")), options.get("queue"))
    )
    for seconds in (100, 0.5):
        app.send_task("any.task", (1,), queue="q", countdown=seconds)

    assert sent == [("celery_delayed_27", None), (None, app.amqp.queues["q"])]
