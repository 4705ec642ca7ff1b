"""The row says what Celery would have done: when, where to, and with what declared before."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from inspect import signature
from typing import Any

import pytest
from celery import Celery, signals
from kombu import Exchange, Producer, Queue
from kombu.common import Broadcast
from kombu.entity import binding

from celery_outbox import Message, OutboxCelery
from celery_outbox.capture.channel import PUBLISH
from celery_outbox.dispatch import dispatch_of


def send(
    name: str = "any.task", *, settings: dict[str, Any] | None = None, **options: Any
) -> Message:
    """Return the row that a send makes of an app with `settings`."""
    app = OutboxCelery("shop", broker="amqp://", set_as_current=False, changes=settings or {})
    rows: list[Message] = []
    app.conf.outbox_database_url = "postgresql:///none"
    object.__setattr__(dispatch_of(app), "carry_out", lambda _, row: rows.append(row))
    app.send_task(name, (1,), **options)
    return rows[0]


def test_sent_at_once_unless_told_otherwise() -> None:
    """Without eta and expires neither time is set."""
    row = send()

    assert (row.available_at, row.expires_at) == (None, None)


def test_countdown_and_expires() -> None:
    """Both become times in the database, next to the headers workers read."""
    before = datetime.now(UTC)
    row = send(countdown=100, expires=200)
    after = datetime.now(UTC)

    assert row.available_at
    assert row.expires_at
    assert before <= row.available_at - timedelta(seconds=100) <= after
    assert before <= row.expires_at - timedelta(seconds=200) <= after
    assert row.available_at.isoformat() in row.headers


@pytest.mark.parametrize("settings", [{}, {"timezone": "Asia/Tokyo"}, {"enable_utc": False}])
def test_eta_means_what_it_means_to_a_worker(settings: dict[str, Any]) -> None:
    """An aware time is kept; a naive one is UTC, whatever the app's time zone, as in Celery."""
    paris = timezone(timedelta(hours=2))
    aware = send(settings=settings, eta=datetime(2030, 1, 1, 14, tzinfo=paris))
    naive = send(settings=settings, eta=datetime(2030, 1, 1, 12))
    text = send(settings=settings, eta="2030-01-01T12:00:00Z")

    for row in (aware, naive, text):
        assert row.available_at == datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_protocol_1() -> None:
    """Task protocol 1 keeps id and times in the body; the row has them all the same."""
    eta = datetime(2030, 1, 1, tzinfo=UTC)
    row = send(settings={"task_protocol": 1}, task_id="one", eta=eta, headers={"x": 1})

    assert (row.message_id, row.available_at) == ("one", eta)
    assert json.loads(row.headers)["x"] == 1  # an agent may have added some


def test_declares_the_queue() -> None:
    """Only what differs from kombu's defaults is written down."""
    assert send().declare == (
        '[{"kind": "queue", "name": "celery", "routing_key": "celery",'
        ' "exchange": {"name": "celery"}}]'
    )


def test_declares_arguments_and_bindings() -> None:
    """Type, arguments, limits and every binding of a queue are kept."""
    bindings: Any = [binding(Exchange("a", "topic"), "a.#"), binding(Exchange("b"), "b", {"x": 1})]
    queue = Queue(
        "q",
        bindings,
        durable=False,
        max_length=5,
        queue_arguments={"x-queue-type": "quorum"},
    )
    row = send(settings={"task_queues": [queue]}, queue="q", exchange="a", routing_key="a.x")

    for part in (
        '"max_length": 5',
        '"durable": false',
        '"queue_arguments": {"x-queue-type": "quorum"}',
        '{"routing_key": "a.#", "exchange": {"name": "a", "type": "topic"}}',
        '{"routing_key": "b", "arguments": {"x": 1}, "exchange": {"name": "b"}}',
    ):
        assert part in row.declare


def test_another_exchange_declares_no_queue() -> None:
    """With an explicit exchange, the queue of the route not taken is not named."""
    row = send(exchange="elsewhere", routing_key="there")

    assert (row.exchange, row.routing_key, row.declare) == ("elsewhere", "there", "[]")


def test_explicit_declare_is_kept() -> None:
    """What the caller asks to be declared is declared."""
    row = send(exchange="x", routing_key="k", declare=[Exchange("x", "topic", durable=False)])

    assert row.declare == '[{"kind": "exchange", "name": "x", "type": "topic", "durable": false}]'


def test_no_declare() -> None:
    """An entity that must not be declared is not."""
    queue = Queue("q", Exchange("q"), "q", no_declare=True)

    assert send(settings={"task_queues": [queue]}, queue="q").declare == "[]"


def test_mandatory() -> None:
    """Reaching no queue is a failure, except where nobody need listen, or not at once."""
    queues = [Queue("celery", Exchange("celery"), "celery"), Broadcast("news")]
    settings: dict[str, Any] = {"task_queues": queues}

    assert send(settings=settings).mandatory
    assert not send(settings=settings, queue="news").mandatory
    assert not send(settings=settings, exchange="news", routing_key="x").mandatory
    assert not send(exchange=Exchange("f", "fanout"), routing_key="x").mandatory
    assert not send(exchange=Exchange("d", "x-delayed-message"), routing_key="x").mandatory
    assert not send(mandatory=False).mandatory


def test_signals() -> None:
    """before_task_publish may still change the message; after_task_publish means it is a row."""
    seen: list[Any] = []

    def before(headers: dict[str, Any], **_: Any) -> None:
        headers["trace"] = "abc"

    def after(**facts: Any) -> None:
        seen.append(facts["routing_key"])

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        row = send()
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)

    assert '"trace": "abc"' in row.headers
    assert seen == ["celery"]


def test_keeps_only_properties_amqp_has() -> None:
    """An option that is no AMQP property never reached the wire, and does not reach the row."""
    assert "colour" not in send(colour=object()).properties


def test_no_monitoring_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event "task-sent" would need the broker: it is not sent."""
    monkeypatch.setattr("celery.events.EventDispatcher.publish", pytest.fail)

    assert send(settings={"task_send_sent_event": True}).task == "any.task"


def test_retry_policy_is_of_no_consequence() -> None:
    """Celery's own retries of a publish are for a broker, and are not entered."""
    assert send(retry=True, retry_policy={"max_retries": 5}).task == "any.task"
    assert send(retry=False).task == "any.task"


def test_the_seam_exists() -> None:
    """The private function of Celery that the capture replaces is where it is expected."""
    plain = Celery("plain", set_as_current=False)

    assert callable(plain.amqp._create_task_sender())  # type: ignore[attr-defined]  # the claim


@pytest.mark.skipif(
    Producer.publish.__module__ != "kombu.messaging", reason="an agent has put its own there"
)
def test_the_parameters_of_publish_are_kombus() -> None:
    """They are written down here; an older kombu has fewer."""
    theirs = {*signature(Producer.publish).parameters}

    assert theirs - {*PUBLISH.parameters} == set()
    assert {*PUBLISH.parameters} - theirs <= {"confirm_timeout"}


def test_an_agent_may_have_replaced_publish() -> None:
    """By a function that takes anything, as Sentry's SDK does, before we are imported."""
    code = (
        "from kombu import Producer\n"
        "publish = Producer.publish\n"
        "Producer.publish = lambda *args, **kwargs: publish(*args, **kwargs)\n"
        "from celery_outbox.capture.event import OPTIONS\n"
        "assert {'declare', 'headers', 'expiration'} <= OPTIONS\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
