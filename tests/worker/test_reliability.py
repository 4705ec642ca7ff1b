"""reliable(app) leaves no setting that loses messages, and names what it cannot change."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.signals import celeryd_after_setup
from kombu import Connection, Exchange, Queue
from kombu.transport.redis import Channel

from celery_inbox import reliable
from celery_inbox.quorum import supports_quorum
from celery_inbox.reliability import contradictions
from celery_inbox.restoring import RestoreUnacked
from tests.fixtures.broker import Broker
from tests.fixtures.programs import Program, WorkerFactory
from tests.fixtures.waiting import wait_until
from tests.worker import deadly, orphaned

needs_quorum = pytest.mark.skipif(
    not supports_quorum(), reason="this Celery cannot consume quorum queues"
)


@pytest.fixture
def rabbit_app() -> Iterator[Celery]:
    """An app whose broker would be RabbitMQ; nothing connects."""
    with Celery("shop", broker="amqp://", set_as_current=False) as app:
        app.conf.task_time_limit = 60
        yield app


@pytest.fixture
def redis_app() -> Iterator[Celery]:
    """An app whose broker would be Redis; nothing connects."""
    with Celery("shop", broker="redis://", set_as_current=False) as app:
        app.conf.task_time_limit = 60
        yield app


def test_it_changes_what_loses_messages_and_says_so(redis_app: Celery) -> None:
    """Each line names a setting, what it was and what it is."""
    changes = reliable(redis_app)

    assert changes == (
        "task_acks_late: False -> True",
        "task_reject_on_worker_lost: None -> True",
        "worker_prefetch_multiplier: 4 -> 1",
        "messages of unregistered tasks, and undecodable ones: thrown away -> <queue>.dead",
    )
    assert redis_app.conf.task_acks_late is True
    assert redis_app.conf.task_reject_on_worker_lost is True
    assert redis_app.conf.worker_prefetch_multiplier == 1


def test_what_is_right_already_is_not_reported(redis_app: Celery) -> None:
    """A second call finds nothing to change."""
    reliable(redis_app)

    assert reliable(redis_app) == ()


def test_a_reliable_app_has_no_contradictions(rabbit_app: Celery, redis_app: Celery) -> None:
    """Nothing is left to warn of."""
    for app in (rabbit_app, redis_app):
        reliable(app)
        app.task(name="charge", shared=False)(nothing)

        assert contradictions(app) == ()


@needs_quorum
def test_queues_on_rabbitmq_become_quorum_queues_with_a_limit(rabbit_app: Celery) -> None:
    """Also queues that Celery makes as routes name them; what is not durable stays as it is."""
    rabbit_app.conf.task_queues = [
        Queue("mine", Exchange("mine"), queue_arguments={"x-queue-type": "classic"}),
        Queue("brief", Exchange("brief"), durable=False),
    ]
    reliable(rabbit_app, delivery_limit=7)

    queues = rabbit_app.amqp.queues
    made = queues["invoices"].queue_arguments or {}
    assert made["x-queue-type"] == "quorum"
    assert made["x-delivery-limit"] == 7
    assert made["x-dead-letter-routing-key"] == "invoices.dead"
    assert queues["mine"].queue_arguments == {"x-queue-type": "classic"}
    assert not queues["brief"].queue_arguments


def test_queue_types_are_left_alone_on_request_and_on_redis(
    rabbit_app: Celery, redis_app: Celery
) -> None:
    """An existing classic queue cannot change its type, and Redis has no types."""
    reliable(rabbit_app, quorum=False)
    reliable(redis_app)

    assert not rabbit_app.amqp.queues["celery"].queue_arguments
    assert not redis_app.amqp.queues["celery"].queue_arguments


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"acks_late": False}, "charge has acks_late=False"),
        ({"reject_on_worker_lost": False}, "charge has reject_on_worker_lost=False"),
        ({"time_limit": 7200}, "a task may run 7200 s"),
    ],
    ids=["acks-early", "keeps-lost", "too-long"],
)
def test_a_task_that_contradicts_is_named(
    rabbit_app: Any, options: dict[str, Any], warning: str
) -> None:
    """A task's own options win over the app's, so they are warned of."""
    reliable(rabbit_app)
    rabbit_app.task(name="charge", shared=False, **options)(nothing)

    [found] = contradictions(rabbit_app)
    assert found.startswith(warning)


@pytest.mark.parametrize(
    ("setting", "value", "warning"),
    [
        ("task_acks_late", False, "task_acks_late is False again"),
        ("task_time_limit", None, "no time limit"),
        ("task_default_delivery_mode", "transient", "task_default_delivery_mode is transient"),
        ("task_queues", [Queue("q", durable=False)], "queue q is not durable"),
    ],
)
def test_a_setting_that_contradicts_is_named(
    redis_app: Celery, setting: str, value: Any, warning: str
) -> None:
    """Settings that came after reliable(app), or that it does not change."""
    reliable(redis_app)
    redis_app.task(name="charge", shared=False, acks_late=True)(nothing)
    redis_app.conf[setting] = value

    assert contradictions(redis_app)[0].startswith(warning)


def test_the_visibility_timeout_outlasts_the_longest_task(
    redis_app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    """It is fitted when a worker starts: then all tasks are known."""
    reliable(redis_app)
    redis_app.conf.broker_transport_options = {"visibility_timeout": 100, "max_retries": 3}
    redis_app.task(name="report", shared=False, time_limit=900)(nothing)

    with caplog.at_level("INFO", "celery_inbox"):
        celeryd_after_setup.send(sender="w", instance=Started(redis_app), conf=redis_app.conf)

    assert redis_app.conf.broker_transport_options == {"visibility_timeout": 1800, "max_retries": 3}
    assert "visibility_timeout: 100 -> 1800" in caplog.text
    assert "task_acks_late: False -> True" in caplog.text


def test_options_that_an_older_kombu_passes_over_are_heeded(
    redis_app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that say how often to look for what a lost worker held; and the change is named."""
    restore = {"unacked_restore_interval", "unacked_restore_throttle"}
    older = tuple(set(Channel.from_transport_options) - restore)
    monkeypatch.setattr(Channel, "from_transport_options", older)
    redis_app.conf.broker_transport_options = dict.fromkeys(restore, 1)

    assert reliable(redis_app)[-1].startswith("unacked_restore_interval and _throttle: heeded")
    assert RestoreUnacked in redis_app.steps["consumer"]


@needs_quorum
@pytest.mark.parametrize(
    "queue",
    [
        Queue("q", max_priority=10),
        Queue("q", queue_arguments={"x-max-priority": 10}),
        Queue("q", queue_arguments={"x-queue-mode": "lazy"}),
        Queue("q", queue_arguments={"x-queue-version": 2}),
    ],
    ids=["max_priority", "x-max-priority", "lazy", "version"],
)
def test_what_no_quorum_queue_can_have_stays_classic(
    rabbit_app: Celery, broker: Broker, queue: Queue
) -> None:
    """The broker takes the declaration, and the worker names the queue and the two ways out."""
    rabbit_app.conf.task_queues = [queue]
    reliable(rabbit_app)

    [declared] = rabbit_app.amqp.queues.values()
    with Connection(broker.url) as connection:
        declared(connection.default_channel).queue_declare()
    [found] = contradictions(rabbit_app)
    assert found.startswith("queue q stays a classic queue for its ")
    assert "quorum=False" in found


@needs_quorum
def test_a_queue_that_exists_as_something_else_is_consumed(
    broker: Broker, celery_worker: WorkerFactory
) -> None:
    """As when SQL or the relay declared it first: its messages run, and the log says what to do."""
    broker.declare("celery")
    with Celery("sender", broker=broker.url, set_as_current=False) as sender:
        sender.send_task(f"{deadly.__name__}.live")
    worker = celery_worker(deadly.__name__, DEADLY_BROKER=broker.url)

    worker.wait_for_output("succeeded in")
    assert "queue celery exists already and is no quorum queue" in worker.output()
    assert "reliable(app, quorum=False)" in worker.output()


@needs_quorum
def test_from_a_classic_queue_to_a_quorum_queue(
    broker: Broker, celery_worker: WorkerFactory
) -> None:
    """The page's way: workers consume both, then senders use the new one, then the old one goes."""
    environment = {"DEADLY_BROKER": broker.url, "DEADLY_QUEUES": "celery,celery.2"}
    name = f"{deadly.__name__}.live"
    broker.declare("celery")
    with Celery("before", broker=broker.url, set_as_current=False) as before:
        for _ in range(5):
            before.send_task(name)
        worker = celery_worker(deadly.__name__, **environment)
        with Celery("after", broker=broker.url, set_as_current=False) as after:
            after.conf.task_default_queue = "celery.2"
            reliable(after, delivery_limit=deadly.LIMIT)
            for _ in range(5):
                before.send_task(name)
                after.send_task(name)

    wait_until(lambda: worker.output().count("succeeded in") == 15, 60, "all that was sent")
    assert broker.depth("celery") == broker.depth("celery.2") == 0


@needs_quorum
def test_a_task_that_no_worker_knows_is_put_aside(
    broker: Broker, celery_worker: WorkerFactory
) -> None:
    """A message of a newer sender waits for a person, where plain Celery throws it away."""
    celery_worker(deadly.__name__, DEADLY_BROKER=broker.url)
    with Celery("sender", broker=broker.url, set_as_current=False) as sender:
        reliable(sender, delivery_limit=deadly.LIMIT)
        id = sender.send_task("shop.unknown").id

    wait_until(lambda: broker.depth("celery.dead") == 1, 60, "a dead letter")
    [dead] = broker.take_all("celery.dead")
    assert dead.headers["id"] == id


@needs_quorum
def test_a_message_that_keeps_killing_workers_is_put_aside(
    broker: Broker, celery_worker: WorkerFactory
) -> None:
    """After the delivery limit it waits in the queue of dead letters, and others go on."""
    celery_worker(deadly.__name__, DEADLY_BROKER=broker.url)
    with Celery("sender", broker=broker.url, set_as_current=False) as sender:
        reliable(sender, delivery_limit=deadly.LIMIT)
        ids = [str(uuid4()), str(uuid4())]
        for id, name in zip(ids, ("die", "live"), strict=True):
            sender.send_task(f"{deadly.__name__}.{name}", task_id=id)

    wait_until(lambda: broker.depth("celery.dead") == 1, 60, "a dead letter")

    [dead] = broker.take_all("celery.dead")
    assert dead.headers["id"] == ids[0]
    wait_until(lambda: broker.depth("celery") == 0, 30, "an empty queue")


def test_on_redis_a_killed_workers_message_is_given_back_when_the_options_say(
    valkey_url: str, celery_worker: WorkerFactory
) -> None:
    """Within seconds, also where kombu itself would look only every hundred."""
    workers = [celery_worker(orphaned.__name__, ORPHANED_BROKER=valkey_url) for _ in range(2)]
    with Celery("sender", broker=valkey_url, set_as_current=False) as sender:
        sender.send_task(f"{orphaned.__name__}.outlive")

    def anybody(done: Callable[[Program], bool]) -> bool:
        return any(done(worker) for worker in workers)

    wait_until(lambda: anybody(lambda worker: worker.process.poll() is not None), 30, "a death")
    wait_until(lambda: anybody(lambda worker: "succeeded in" in worker.output()), 30, "a success")


def nothing() -> None:
    """The body of tasks that never run here."""


class Started:
    """A worker, as the signal of its start shows it."""

    def __init__(self, app: Celery) -> None:
        self.app: Any = app
