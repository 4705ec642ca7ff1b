"""Asks a RabbitMQ what exists, over AMQP alone, and changes nothing on it.

A queue's limits are not told to clients. But a declaration that contradicts an existing queue is
refused with the first difference: declared with a type that does not exist, nothing can ever come
into being, and each refusal tells one argument more. RabbitMQ 4.3 compares the delivery limit of a
quorum queue after its type: then another value that does not exist keeps the queue from being made.
"""

import re
from typing import Any, Final

from amqp.exceptions import AccessRefused, AMQPError, NotFound, PreconditionFailed, ResourceLocked

from outbox_relay.broker.amqp.check.queues import Queue
from outbox_relay.broker.amqp.connect import CONNECT_TIMEOUT, open_connection, words_of
from outbox_relay.broker.amqp.passive import Declared, Unanswered, ask
from outbox_relay.core.depth import Depth
from outbox_relay.errors import BrokerLost

NO_SUCH_TYPE: Final = "doctor-asks-only"
#: Refused for a queue that would have to be made, and compared after all that is looked at here.
LAST: Final = "x-queue-leader-locator"
DIFFERENCE: Final = re.compile(
    r"inequivalent arg '(?P<key>[^']+)' for queue .* but current is "
    r"(?:none|(?:the value )?'(?P<value>.*?)'(?: of type '(?P<type>\w+)')?)$"
)
#: More arguments than a queue can have.
MAX_ARGUMENTS: Final = 25


class Probe:
    """A connection to ask on. Raises BrokerLost where it cannot be opened, or breaks."""

    def __init__(self, url: str) -> None:
        self._connection = open_connection(url)
        self._channel: Any = None  # amqp.Channel, which kombu's annotations do not admit
        #: How many channels are left to queues that have not answered.
        self.left = 0

    def close(self) -> None:
        """Drop the connection without a handshake, which could hang on a blocked broker."""
        self._connection.collect()

    @property
    def version(self) -> str:
        """What the broker greeted with."""
        greeting: Any = self._connection  # the stubs lack what the server said of itself
        return str(greeting.server_properties.get("version", ""))

    def may_open_channel(self) -> None:
        """Raise BrokerLost where not even that is allowed."""
        self._ask(lambda _: None)

    def exchange_exists(self, name: str) -> bool | None:
        """None where this user may not know."""
        try:
            self._ask(lambda c: c.exchange_declare(name, "", passive=True, auto_delete=False))
        except NotFound:
            return False
        except AccessRefused:
            return None
        return True

    def queue(self, name: str) -> Queue | None:
        """What can be known of a queue, or None where there is none. Raises Unanswered."""
        try:
            self._ask(lambda c: ask(c, name, CONNECT_TIMEOUT))
        except NotFound:
            return None
        except (AccessRefused, ResourceLocked):
            return Queue(name, readable=False)
        return self._described(name)

    def depth(self, name: str, within: float | None = None) -> Depth | None:
        """Messages ready and consumers, or None where there is no queue that this user may see.

        Raises Unanswered where the queue does not answer within so many seconds, or a few.
        """
        found: list[Declared] = []
        try:
            self._ask(lambda c: found.append(ask(c, name, within or CONNECT_TIMEOUT)))
        except (NotFound, AccessRefused, ResourceLocked):
            return None
        return Depth(name, found[0].messages, found[0].consumers)

    def _described(self, name: str) -> Queue:
        flags = {"durable": True, "auto_delete": False}
        arguments: dict[str, Any] = {"x-queue-type": NO_SUCH_TYPE}
        readable = False
        for _ in range(MAX_ARGUMENTS):
            difference = DIFFERENCE.search(self._refusal(name, flags, arguments))
            if not difference:
                break
            key, value = difference["key"], difference["value"]
            if key == LAST:
                break
            if key == "x-queue-type":
                readable = True  # all the others agree, but for a delivery limit
                del arguments[key]
                arguments |= (
                    {LAST: NO_SUCH_TYPE} if value is None else {key: value, LAST: NO_SUCH_TYPE}
                )
            elif key in flags:
                flags[key] = value == "true"
            elif value is not None and key not in arguments:
                arguments[key] = _typed(value, difference["type"])
            else:
                break
        known = {k: v for k, v in arguments.items() if v != NO_SUCH_TYPE}
        return Queue(name, flags["durable"], flags["auto_delete"], known, readable=readable)

    def _refusal(self, name: str, flags: dict[str, bool], arguments: dict[str, Any]) -> str:
        try:
            self._ask(lambda c: c.queue_declare(name, arguments=arguments, **flags))
        except (PreconditionFailed, AccessRefused, ResourceLocked) as error:
            return str(error)
        return ""

    def _ask(self, question: Any) -> None:
        try:
            if self._channel is None:
                self._channel = self._connection.channel()
            question(self._channel)
        except (NotFound, AccessRefused, PreconditionFailed, ResourceLocked):
            self._channel = None  # the broker has closed it
            raise
        except Unanswered:
            self._channel, self.left = None, self.left + 1  # it hangs with the queue
            raise
        except (OSError, AMQPError) as error:
            raise BrokerLost(f"the broker closed the connection: {words_of(error)}") from error


def _typed(value: str, kind: str | None) -> Any:
    if kind in ("longstr", "shortstr", None):
        return value
    if kind == "bool":
        return value == "true"
    return int(value) if re.fullmatch(r"-?\d+", value) else value
