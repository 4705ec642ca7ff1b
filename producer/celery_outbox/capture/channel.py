"""Captures the finished wire message: what Celery and kombu hand to the channel, field for field.

Routing, serialisation, compression, signing and expiry are done by Celery's and kombu's own code;
only the channel, their last step, is replaced by one that hands the message back.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any, Final, NamedTuple

from celery import Celery
from kombu import Exchange, Producer, Queue

from celery_outbox.errors import NoChannel


def _publish(
    self: Any,
    body: Any,
    routing_key: Any = None,
    delivery_mode: Any = None,
    mandatory: Any = False,
    immediate: Any = False,
    priority: Any = 0,
    content_type: Any = None,
    content_encoding: Any = None,
    serializer: Any = None,
    headers: Any = None,
    compression: Any = None,
    exchange: Any = None,
    retry: Any = False,
    retry_policy: Any = None,
    declare: Any = None,
    expiration: Any = None,
    timeout: Any = None,
    confirm_timeout: Any = None,
    **properties: Any,
) -> None: ...


#: What kombu's producers publish with. Written down, because agents that watch an application put
#: a function of their own in the place of `Producer.publish`, which takes anything.
PUBLISH: Final = signature(_publish)


class Captured(NamedTuple):
    """What `basic_publish` would have been given."""

    body: bytes | str
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    exchange: str
    routing_key: str
    declare: tuple[Queue | Exchange, ...]


class _Channel:
    """The two methods of a channel that publishing needs."""

    connection = None

    def prepare_message(
        self,
        body: bytes | str,
        priority: int | None = None,
        content_type: str = "",
        content_encoding: str = "",
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> Captured:
        properties = {**(properties or {}), "priority": priority}
        return Captured(body, content_type, content_encoding, headers or {}, properties, "", "", ())

    def basic_publish(
        self, message: Captured, exchange: str = "", routing_key: str = "", **_: Any
    ) -> Captured:
        return message._replace(exchange=exchange, routing_key=routing_key)

    def __getattr__(self, name: str) -> Any:
        raise NoChannel.about(operation=name)


class LazyConnection:
    """What Celery, and who watches it, ask of a producer's connection while a task is sent.

    Nothing connects for that. Anything else is answered by a connection to the app's broker.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def _reraise_as_library_errors(self) -> AbstractContextManager[None]:
        return nullcontext()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app.pool.connection, name)


class CapturingProducer(Producer):
    """A kombu producer whose `publish` returns the message instead of sending it.

    It has no connection of its own and no state: every thread shares one.
    """

    #: No transport puts several captured messages together.
    supports_batch_publish = False

    def __init__(self, app: Celery) -> None:
        channel: Any = _Channel()
        super().__init__(channel, auto_declare=False)
        self._connection = LazyConnection(app)

    @property
    def connection(self) -> Any:
        """Nothing that connects unasked."""
        return self._connection

    def publish(self, *args: Any, **options: Any) -> Any:
        """Return the message as Captured, prepared in every way but sent."""
        declare = options.pop("declare", None) or ()
        publish: Any = super().publish  # returns what the channel returns
        # There is no broker to retry.
        captured: Captured = publish(*args, **{**options, "retry": False})
        return captured._replace(declare=tuple(declare))


class OutboxProducer(CapturingProducer):
    """What Celery and everybody else get instead of a producer that is connected to the broker.

    A task's sender recognises it. What others publish with it becomes a row as well.
    """

    def __init__(self, app: Celery, store: Callable[..., object]) -> None:
        super().__init__(app)
        self._store = store

    def publish(self, *args: Any, **options: Any) -> Any:
        """Store a message, as `app.outbox.publish(None, ...)` does."""
        given = PUBLISH.bind(self, *args, **options).arguments
        del given["self"]
        self._store(given.pop("body"), **given.pop("properties", {}), **given)

    def maybe_declare(self, *_: Any, **__: Any) -> Any:
        """Refuse: to declare something takes a channel."""
        raise NoChannel.about(operation="maybe_declare")
