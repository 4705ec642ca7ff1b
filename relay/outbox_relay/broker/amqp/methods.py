"""What declaring an entity takes, as AMQP methods: kombu says which, and in which order.

Nothing is sent here. Each method is one step, for which the broker answers once.
"""

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Any, Final, NamedTuple

from amqp.serialization import dumps
from kombu import Exchange, Queue
from kombu.transport import base

from outbox_relay.errors import Unpublishable

#: kombu's own, which its published types leave out.
_queue_arguments: Final[Any] = vars(base)["to_rabbitmq_queue_arguments"]
_method: Final = Struct(">HH").pack
#: What a frame has around its payload, in bytes.
FRAME_OVERHEAD: Final = 8


class Step(NamedTuple):
    """One method, the entity it is sent for, and how many steps in a row are for that entity."""

    entity: str
    payload: bytes
    left: int = 1  # of this entity, this one included
    passive: bool = False  # it only asks whether the entity exists
    needed: bool = True  # without the entity, nothing can be published


def steps_for(entities: Iterable[Queue | Exchange], frame_max: int) -> list[Step]:
    """What declares them, in order. Raises Unpublishable over what no broker could declare."""
    steps: list[Step] = []
    for entity in entities:
        recorder: Any = _Recorder()  # a channel, as far as kombu uses one
        try:
            entity(recorder).declare()
        except Exception as error:  # kombu's or py-amqp's, over a value of a type AMQP lacks
            raise Unpublishable(f"declaring {entity.name!r} failed: {error}") from error
        if any(len(payload) + FRAME_OVERHEAD > frame_max for payload in recorder.payloads):
            raise Unpublishable(f"declaring {entity.name!r} failed: it is larger than a frame")
        count = len(recorder.payloads)
        steps += [
            Step(entity.name, payload, count - number)
            for number, payload in enumerate(recorder.payloads)
        ]
    return steps


def look_for(exchange: str) -> Step:
    """Ask whether an exchange exists: a passive declaration, which needs no right to configure.

    Raises Unpublishable over a name that no exchange could have.
    """
    recorder = _Recorder()
    try:
        recorder.exchange_declare(exchange, "", passive=True)
    except Exception as error:  # py-amqp's, over a name that is too long
        raise Unpublishable(f"no exchange is called like that: {error}") from error
    return Step(exchange, recorder.payloads[0], passive=True)


def look_for_queue(name: str) -> Step:
    """Ask whether the node that has a queue is down.

    Raises Unpublishable over a name that no queue could have.
    """
    recorder = _Recorder()
    try:
        recorder.queue_declare(name, True, False, False, False, None, False)
    except Exception as error:  # py-amqp's, over a name that is too long
        raise Unpublishable(f"no queue is called like that: {error}") from error
    return Step(name, recorder.payloads[0], passive=True, needed=False)


class _Recorder:
    """Takes down what kombu asks of a channel."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def exchange_declare(
        self,
        exchange: str,
        type: str,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        nowait: bool = False,
    ) -> None:
        flags = (passive, durable, auto_delete, False, nowait)
        self._take_down(40, 10, "BssbbbbbF", 0, exchange, type, *flags, arguments)

    def queue_declare(
        self,
        queue: str,
        passive: bool,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Mapping[str, Any] | None,
        nowait: bool,
    ) -> tuple[str]:
        flags = (passive, durable, exclusive, auto_delete, nowait)
        self._take_down(50, 10, "BsbbbbbF", 0, queue, *flags, arguments)
        return (queue,)

    def queue_bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str,
        arguments: Mapping[str, Any] | None,
        nowait: bool,
    ) -> None:
        self._take_down(50, 20, "BsssbF", 0, queue, exchange, routing_key, nowait, arguments)

    def prepare_queue_arguments(
        self, arguments: dict[str, Any], **options: Any
    ) -> Mapping[str, Any]:
        made: Mapping[str, Any] = _queue_arguments(arguments, **options)
        return made

    def _take_down(self, class_: int, method: int, format_: str, *arguments: Any) -> None:
        self.payloads.append(_method(class_, method) + dumps(format_, arguments))
