"""`OutboxCelery`: Celery in everything but its last step, where a send becomes a row.

Every task message there is (delay, send_task, canvas, retry, replace, what workers and beat send)
passes `app.amqp.send_task_message`; nothing else does. No connection to a broker is made for it.
"""

import logging
import sys
from contextlib import nullcontext
from functools import cached_property
from typing import Any, cast

from celery import Celery, signals
from celery.app.amqp import AMQP
from kombu import Producer

from celery_outbox import overrides
from celery_outbox.backend import keep_quiet
from celery_outbox.dispatch import dispatch_of
from celery_outbox.errors import InvalidSetting
from celery_outbox.outbox import Outbox
from celery_outbox.routing import Passage
from celery_outbox.sender import TaskSender, check_dedup_key
from celery_outbox.worker import continuing_canvas, is_continuing

logger = logging.getLogger(__name__)

overrides.install()


class OutboxCelery(Celery):
    """A drop-in for celery.Celery whose tasks are sent through a Postgres outbox.

    `app.outbox` says in which transaction. Two settings of its own, as Celery configuration or in
    the environment: `outbox_database_url`, for what is sent without a transaction, and
    `outbox_schema`.
    """

    @property
    def _custom_task_cls_used(self) -> bool:
        """Whether tasks are of a class of somebody's own, and not of Django's.

        Celery 5.5 and 5.6 think so of every subclass of theirs, which loses `delay_on_commit`.
        """
        return bool(self.task_cls != Celery.task_cls)

    @_custom_task_cls_used.setter
    def _custom_task_cls_used(self, _: bool) -> None:
        """Leave what Celery found."""

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
        deduplicated = check_dedup_key(name, options, follows=follows or is_continuing())
        passage = Passage(options.get("router") or self.amqp.router, countdown, eta)
        options["router"] = passage
        with continuing_canvas() if follows else nullcontext():
            result = super().send_task(name, args, kwargs, countdown, eta, *more, **options)
        if deduplicated and passage.outcome is not None:
            passage.outcome.share_id_with(result)
        return result

    def _get_backend(self) -> Any:
        return keep_quiet(super()._get_backend())  # type: ignore[misc]  # not in the stubs


def install(app: Celery) -> OutboxCelery:
    """Make an OutboxCelery of an app that somebody else created, and return it.

    The object stays the same one, so tasks already registered on it are captured as well. Of a
    proxy, such as `celery.current_app`, it is the app that this stands for now.
    """
    app = _unproxied(app)
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


def _unproxied(app: Any) -> Celery:
    """Return what a proxy stands for: Celery's, Werkzeug's LocalProxy, wrapt's."""
    found = app
    while not issubclass(type(found), Celery):  # isinstance() would believe what a proxy says
        current = getattr(found, "_get_current_object", None)
        found = current() if current is not None else getattr(found, "__wrapped__", None)
        if found is None:
            raise TypeError(f"install() takes a Celery app, not {type(app).__name__}")
    return cast(Celery, found)


def _reduce_installed(app: OutboxCelery) -> Any:
    """Pickle an app of a class made by `install`, which no import could find."""
    return _installed, (type(app).__mro__[2], app.__reduce_keys__())


def _installed(kind: type[Celery], keys: dict[str, Any]) -> OutboxCelery:
    return install(kind(**keys, set_as_current=False))


def _begin(app: OutboxCelery) -> None:
    """Begin the work of a worker or of beat, or end the process: signals let nothing less pass."""
    try:
        dispatch_of(app).begin_work()
    except InvalidSetting as error:
        sys.exit(f"celery-outbox: {error}")


@signals.worker_init.connect
def _begin_work(sender: Any, **_: Any) -> None:
    if not isinstance(sender.app, OutboxCelery):
        return
    _begin(sender.app)
    if not dispatch_of(sender.app).has_database():
        logger.warning(
            "OUTBOX_DATABASE_URL is not set: this worker sends retries and the continuation of"
            " chains, groups and chords directly to the broker, as Celery does, not through the"
            " outbox"
        )


@signals.beat_init.connect
def _begin_beat(sender: Any, **_: Any) -> None:
    if isinstance(sender.app, OutboxCelery):
        _begin(sender.app)
