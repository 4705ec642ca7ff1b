"""Makes an app's workers acknowledge a message only when it is done with, and says what changed.

What a setting cannot cure is warned of when a worker starts, when all tasks and queues are known.
"""

from typing import Any

from celery import Celery, signals
from celery.utils.log import get_logger

from celery_inbox.dead_letters import keep_what_cannot_run
from celery_inbox.green_threads import stopped_by_psycopg
from celery_inbox.quorum import ReliableQueues, only_classic, supports_quorum
from celery_inbox.restoring import RestoreUnacked, passed_over

logger = get_logger(__name__)

_AT_LEAST_ONCE = {
    "task_acks_late": True,  # a message outlives the worker that held it
    "task_reject_on_worker_lost": True,  # ... and the child process that ran it
    "worker_prefetch_multiplier": 1,  # ... and waits in the broker, where others can take it
}
_BROKER_DEFAULT_SECONDS = {"redis": 3600, "amqp": 1800}  # visibility timeout, consumer_timeout


def reliable(app: Celery, *, quorum: bool = True, delivery_limit: int = 20) -> tuple[str, ...]:
    """Apply the settings at-least-once delivery needs; return (and log) what was changed.

    Call it where the app is made, after configuring it, so that senders and workers agree.

    * `quorum`: on RabbitMQ, make the app's durable queues quorum queues. An existing queue cannot
        change its type, and one with priorities or a lazy mode cannot be a quorum queue: workers
        consume those as they are, and say so. Give it a new name, or pass False.
    * `delivery_limit`: times a quorum queue delivers a message whose worker keeps dying; after that
        it waits in "<queue>.dead", from where a relay brings it home to outbox.dead.

    On RabbitMQ and Redis, what a worker cannot even begin (no such task, an undecodable body) goes
    into "<queue>.dead" too, where Celery would throw it away.
    """
    changes = tuple(
        f"{name}: {app.conf[name]!r} -> {wanted!r}"
        for name, wanted in _AT_LEAST_ONCE.items()
        if app.conf[name] != wanted
    )
    app.conf.update(_AT_LEAST_ONCE)
    if quorum and _transport(app) == "amqp" and supports_quorum():
        ReliableQueues.install(app, delivery_limit)
        changes += (f"queues: quorum, delivery limit {delivery_limit}, then <queue>.dead",)
    changes += keep_what_cannot_run(app, _transport(app))
    if _transport(app) == "redis" and passed_over(app):
        app.steps["consumer"].add(RestoreUnacked)
        changes += ("unacked_restore_interval and _throttle: heeded, which this kombu does not",)

    def on_worker_start(instance: Any, **_: object) -> None:
        if instance.app is app:
            for change in (*changes, *_fit_visibility_timeout(app)):
                logger.info("reliable: %s", change)
            for warning in (*contradictions(app), *stopped_by_psycopg()):
                logger.warning("reliable: %s", warning)

    signals.celeryd_after_setup.connect(on_worker_start, weak=False)
    return changes


def contradictions(app: Celery) -> tuple[str, ...]:
    """What still breaks at-least-once delivery, each with the way out."""
    found = [
        f"{name} is {app.conf[name]!r} again: call reliable(app) after configuring the app"
        for name, wanted in _AT_LEAST_ONCE.items()
        if app.conf[name] != wanted
    ]
    for name, task in sorted(app.tasks.items()):
        if name.startswith("celery."):
            continue
        if not task.acks_late:
            found.append(f"{name} has acks_late=False: a worker that dies loses its message")
        elif not task.reject_on_worker_lost:
            found.append(f"{name} has reject_on_worker_lost=False: a killed child loses it")
    for name, queue in app.amqp.queues.items():
        if not queue.durable or queue.auto_delete:
            found.append(f"queue {name} is not durable: its messages end with the broker")
        elif issubclass(app.amqp.queues_cls, ReliableQueues) and (why := only_classic(queue)):
            found.append(
                f"queue {name} stays a classic queue for its {why}, without a delivery limit: "
                f"take that away, or say that it is meant with reliable(app, quorum=False)"
            )
    if app.conf.task_default_delivery_mode in (1, "transient"):
        found.append("task_default_delivery_mode is transient: set it to persistent")
    return (*found, *_redelivered_while_running(app))


def _redelivered_while_running(app: Celery) -> tuple[str, ...]:
    """Brokers take a message back from a worker that is slower than their own limit."""
    transport = _transport(app)
    if transport not in _BROKER_DEFAULT_SECONDS:
        return ()
    limit, longest = _delivery_seconds(app), _longest_time_limit(app)
    if longest is None:
        return (
            f"no time limit: a task running over {limit:g} s is delivered again meanwhile; set "
            "task_time_limit",
        )
    if longest < limit:
        return ()
    return (
        f"a task may run {longest:g} s and the broker takes its message back after {limit:g} s: "
        "raise RabbitMQ's consumer_timeout, or lower the time limit",
    )


def _fit_visibility_timeout(app: Celery) -> tuple[str, ...]:
    """On Redis, make the timeout outlast the longest time limit."""
    longest = _longest_time_limit(app)
    current = _delivery_seconds(app)
    if _transport(app) != "redis" or longest is None or longest < current:
        return ()
    fitted = int(longest * 2)
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "visibility_timeout": fitted,
    }
    return (f"broker_transport_options visibility_timeout: {current:g} -> {fitted}",)


def _delivery_seconds(app: Celery) -> float:
    transport = _transport(app)
    default = _BROKER_DEFAULT_SECONDS.get(transport, 0)
    if transport != "redis":
        return default
    return float(app.conf.broker_transport_options.get("visibility_timeout", default))


def _longest_time_limit(app: Celery) -> float | None:
    """The longest hard limit of any task; None when one has none."""
    default = app.conf.task_time_limit
    limits = [
        default if task.time_limit is None else task.time_limit
        for name, task in app.tasks.items()
        if not name.startswith("celery.")
    ]
    known = [float(limit) for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def _transport(app: Celery) -> str:
    """Kombu's name for the kind of broker; an app without one gets Celery's default, amqp."""
    return str(app.connection_for_read().transport.driver_type)
