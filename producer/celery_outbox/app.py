"""`OutboxCelery`: Celery in everything but its last step, where a send becomes a row.

Every task message there is (delay, send_task, canvas, retry, replace, what workers and beat send)
passes `app.amqp.send_task_message`; nothing else does. No connection to a broker is made for it.
"""

import logging
import sys
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Final, cast

from celery import Celery, signals
from celery.app.amqp import AMQP
from kombu import Producer
from kombu.exceptions import EncodeError

from celery_outbox import capture, destination, overrides
from celery_outbox.backend import keep_quiet, reply_queues
from celery_outbox.capture import Keys, OutboxProducer
from celery_outbox.dedup import Dedup
from celery_outbox.destination import NotingRouter
from celery_outbox.errors import InvalidSetting, UnsupportedOption
from celery_outbox.outbox import Outbox
from celery_outbox.worker import continuing_canvas, goes_on

logger = logging.getLogger(__name__)

#: By these a task is part of a larger whole, whose result another task cannot stand in for.
PARTS: Final = ("chain", "chord", "group_id", "parent_id")

overrides.install()


class OutboxCelery(Celery):
    """A drop-in for celery.Celery whose tasks are sent through a Postgres outbox.

    `app.outbox` says in which transaction. Two settings of its own, as Celery configuration or in
    the environment: `outbox_database_url`, for what is sent without a transaction, and
    `outbox_schema`.
    """

    @cached_property
    def outbox(self) -> Outbox:
        """Where transactions are joined: `with app.outbox.using(connection): ...`."""
        return Outbox(self)

    @cached_property
    def amqp(self) -> AMQP:
        """Celery's AMQP functionality, with capturing as its last step."""
        amqp: Any = super().amqp
        amqp.send_task_message = TaskSender(self, amqp)
        return cast(AMQP, amqp)

    def producer_or_acquire(self, producer: Producer | None = None) -> Any:
        """Return a block with `producer`, or with one that makes rows of what it publishes."""
        return nullcontext(producer or self.outbox.producer)

    default_producer = producer_or_acquire  # as Celery calls it, too

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: Any = None,
        eta: Any = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """Send a task by name, as celery.Celery does, with options of our own.

        `outbox=` names the transaction to join. `ordering_key=`: the tasks with one are published
        one after another. `dedup_key=`: while another with it is pending, the task is not stored,
        and the result is that of the other one.
        """
        # Celery gives the parent explicitly for what follows a task, and for nothing else.
        follows = options.get("parent_id") is not None
        dedup = _dedup(name, options)
        router = options.get("router") or self.amqp.router
        options["router"] = NotingRouter(router, countdown, eta)
        with continuing_canvas() if follows else nullcontext():
            result = super().send_task(name, args, kwargs, countdown, eta, *more, **options)
        return dedup.returned(result) if dedup else result

    def _get_backend(self) -> Any:
        return keep_quiet(super()._get_backend())  # type: ignore[misc]  # not in the stubs


class TaskSender:
    """Stands in for `app.amqp.send_task_message`."""

    def __init__(self, app: OutboxCelery, amqp: Any) -> None:
        self._app = app
        self._amqp = amqp

    @cached_property
    def _publish(self) -> Any:
        """Celery's own function, made when first needed, once the app is configured."""
        return self._amqp._create_task_sender()

    def __call__(self, producer: Producer, name: str, message: Any, **options: Any) -> None:
        """Store the task, finished by Celery as for the broker."""
        _refuse_connection(name, producer)
        keys = Keys(options.pop("ordering_key", None), options.pop("dedup_key", None))
        if keys.dedup is not None and not isinstance(keys.dedup, Dedup):
            raise _unsupported(name, "dedup_key=", "give it where the task is sent, not in a route")
        if keys.dedup and goes_on(self._app, message):
            keys = keys._replace(dedup=None)  # not sent, the running task would never end
        outbox = self._app.outbox
        noted = destination.take_noted(options, self._amqp.queues)
        put = outbox.place_of_task(name, message, options.pop("outbox", None), keys)
        if put is not None or not destination.is_native_delay(options.get("exchange")):
            destination.replace(options, noted)
        if put is None:
            with Celery.producer_or_acquire(self._app) as connected:
                self._publish(connected, name, message, **options)
            return
        # No event "task-sent", which is monitoring; no retry, as there is no broker to retry.
        options["retry"] = False
        try:
            captured = self._publish(
                outbox.capturing, name, message._replace(sent_event=None), **options
            )
        except EncodeError as error:
            raise capture.unencodable(name, error) from error
        replies = [] if message.headers.get("ignore_result") else reply_queues(self._app.backend)
        put(capture.task_message(self._app, name, message, captured, options, keys, replies))


def _dedup(name: str, options: dict[str, Any]) -> Dedup | None:
    """Replace the dedup_key among `options` by what will know the outcome, and return that."""
    if options.get("dedup_key") is None:
        return None
    if any(options.get(part) for part in PARTS):
        reason = "it is part of a chain, group or chord, which would wait for its own id for ever"
        raise _unsupported(name, "dedup_key=", reason)
    dedup = options["dedup_key"] = Dedup(options["dedup_key"])
    return dedup


def _refuse_connection(name: str, producer: Producer) -> None:
    if not isinstance(producer, OutboxProducer):
        reason = "these name a connection to the broker, which the relay has and this process"
        reason += " does not. For the transaction to join, use outbox="
        raise _unsupported(name, "connection= or producer=", reason)


def _unsupported(task: str, option: str, reason: str) -> UnsupportedOption:
    return UnsupportedOption.about(task=task, option=option, reason=reason)


def install(app: Celery) -> OutboxCelery:
    """Make an OutboxCelery of an app that somebody else created, and return it.

    The object stays the same one, so tasks already registered on it are captured as well.
    """
    if isinstance(app, OutboxCelery):
        return app
    kind = type(app)
    mixed = type(kind.__name__, (OutboxCelery, kind), {"__reduce__": _reduce_installed})
    app.__class__ = OutboxCelery if kind is Celery else mixed
    assert isinstance(app, OutboxCelery)
    if amqp := vars(app).get("amqp"):
        amqp.send_task_message = TaskSender(app, amqp)
    if (backend := getattr(app, "_backend", None)) is not None:
        keep_quiet(backend)
    return app


def _reduce_installed(app: OutboxCelery) -> Any:
    """Pickle an app of a class made by `install`, which no import could find."""
    return _installed, (type(app).__mro__[2], app.__reduce_keys__())


def _installed(kind: type[Celery], keys: dict[str, Any]) -> OutboxCelery:
    return install(kind(**keys, set_as_current=False))


def _begin(app: OutboxCelery) -> None:
    """Begin the work of a worker or of beat, or end the process: signals let nothing less pass."""
    try:
        app.outbox.begin_work()
    except InvalidSetting as error:
        sys.exit(f"celery-outbox: {error}")


@signals.worker_init.connect
def _begin_work(sender: Any, **_: Any) -> None:
    if not isinstance(sender.app, OutboxCelery):
        return
    _begin(sender.app)
    if not sender.app.outbox.has_database:
        logger.warning(
            "OUTBOX_DATABASE_URL is not set: this worker sends retries and the continuation of"
            " chains, groups and chords directly to the broker, as Celery does, not through the"
            " outbox"
        )


@signals.beat_init.connect
def _begin_beat(sender: Any, **_: Any) -> None:
    if isinstance(sender.app, OutboxCelery):
        _begin(sender.app)
