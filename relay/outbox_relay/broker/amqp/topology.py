"""Declares what messages are published to, as Celery would have declared it.

Works on a connection of its own: a refused declaration closes its channel, which must not be the
one that carries messages in flight.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from operator import attrgetter
from time import monotonic
from typing import Any, Final

import amqp
from amqp.exceptions import (
    AccessRefused,
    AMQPError,
    AMQPNotImplementedError,
    ChannelError,
    FrameError,
    FrameSyntaxError,
    InternalError,
    InvalidCommand,
    NotAllowed,
    NotFound,
    UnexpectedFrame,
)
from kombu import Exchange, Queue

from outbox_relay.broker.amqp.connect import open_connection
from outbox_relay.broker.declines import DECLINES
from outbox_relay.broker.entities import described
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.errors import BrokerLost, Unanswered, Unpublishable

#: What one message needs: its declarations, and the exchange it names.
Need = tuple[str, str]
#: What cannot be had, and why.
Failed = Mapping[Need, Refusal]
_need: Callable[[Message], Need] = attrgetter("declare", "exchange")

#: Connection errors by which a broker, or py-amqp itself, says that a declaration makes no sense.
NONSENSE: Final = (
    FrameError,
    FrameSyntaxError,
    InvalidCommand,
    UnexpectedFrame,
    NotAllowed,
    AMQPNotImplementedError,
)

#: How long one call may go on declaring, in seconds: meanwhile nobody reads confirms or sends
#: heartbeats, and leases must not end over hundreds of new queues.
PATIENCE: Final = 0.5
#: How long one declaration may take, in seconds. A queue whose process hangs never answers.
ANSWER_SECONDS: Final = 2.0
#: What RabbitMQ says of a queue that exists, on a node that does not run now.
NODE_DOWN: Final = "down or inaccessible"
#: Beyond so many distinct needs, all that is remembered is forgotten.
MAX_REMEMBERED: Final = 10_000


class Topology:
    """Remembers what is known to exist on this broker, and declares the rest."""

    def __init__(self, url: str, *, declare: bool) -> None:
        self._url = url
        self._declare = declare
        self._known: set[Need] = set()

    def prepare(self, messages: Sequence[Message]) -> Failed:
        """Declare what is not known to exist; map each need that failed to a refusal.

        What there was no time for waits, and has its turn sooner the next time.
        Raises BrokerLost where the side connection breaks.
        """
        known = self._known
        if known.issuperset(map(_need, messages)):
            return {}
        unknown = {need: m for m in messages if (need := _need(m)) not in known}
        if len(known) > MAX_REMEMBERED:
            known.clear()
        failed: dict[Need, Refusal] = {}
        with closing(_Declarer(self._url)) as declarer:
            deadline, late = monotonic() + PATIENCE, False
            for need, message in unknown.items():
                if late:
                    failed[need] = Refusal(message, Reason.UNDECLARED, "others were declared first")
                    continue
                if refusal := self._provide(declarer, message):
                    failed[need] = refusal
                else:
                    known.add(need)
                late = monotonic() > deadline  # after at least one
        return failed

    def forget(self, message: Message) -> None:
        """Declare this again next time: the broker says that it is gone."""
        self._known.discard(_need(message))

    def _provide(self, declarer: "_Declarer", message: Message) -> Refusal | None:
        try:
            entities = described(message.declare)
        except ValueError as error:
            return Refusal(message, Reason.INVALID, str(error))
        if self._declare:
            try:
                for entity in entities:
                    declarer.declare(entity)
            except Unpublishable as error:
                return Refusal(message, Reason.INVALID, str(error))
            except Unanswered as error:
                return Refusal(message, Reason.UNANSWERED, str(error))
        if message.exchange and not declarer.exchange_exists(message.exchange):
            detail = f"404 NOT_FOUND: no exchange {message.exchange!r}"
            return Refusal(message, Reason.UNROUTABLE, detail)
        return None


class _Declarer:
    """A short-lived connection for declarations."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: amqp.Connection | None = None
        self._channel: Any = None  # amqp.Channel, which kombu's annotations do not admit

    def declare(self, entity: Queue | Exchange) -> None:
        """Declare; another existing definition, or a missing right, is the operator's choice.

        Raises Unpublishable over what no broker could declare, Unanswered where the queue, or the
        node that has it, does not answer: other queues may.
        """
        try:
            entity(self._open_channel()).declare()
        except ChannelError as error:
            self._channel = None  # the broker has closed it
            if NODE_DOWN in str(error):
                raise Unanswered(f"declaring {entity.name!r} failed: {error}") from error
            DECLINES.add(entity.name, str(error))
        except InternalError as error:
            # 541 says neither what is wrong nor with what: newer brokers have no transient queues
            # and say it of them. If it is the broker itself, connecting again will show.
            self.close()
            DECLINES.add(entity.name, str(error))
        except TimeoutError as error:
            self.close()
            detail = f"declaring {entity.name!r}: no reply within {ANSWER_SECONDS:.0f} s"
            raise Unanswered(detail) from error
        except NONSENSE as error:
            self.close()
            raise Unpublishable(f"declaring {entity.name!r} failed: {error}") from error
        except (OSError, AMQPError) as error:
            raise BrokerLost(f"declaring {entity.name!r} failed: {error}") from error
        except Exception as error:  # kombu's or py-amqp's, over a value of a type AMQP lacks
            if self._connection is None or not self._connection.connected:
                raise BrokerLost(f"declaring {entity.name!r} failed: {error}") from error
            raise Unpublishable(f"declaring {entity.name!r} failed: {error}") from error

    def exchange_exists(self, name: str) -> bool:
        """A passive declaration: needs no right to configure."""
        try:
            self._open_channel().exchange_declare(name, "", passive=True, auto_delete=False)
        except NotFound:
            self._channel = None
            return False
        except AccessRefused:
            self._channel = None
        except (OSError, AMQPError) as error:
            raise BrokerLost(f"looking for exchange {name!r} failed: {error}") from error
        return True

    def close(self) -> None:
        """Drop the connection without a handshake, which could hang on a blocked broker."""
        if self._connection:
            self._connection.collect()
        self._connection = self._channel = None

    def _open_channel(self) -> Any:
        if self._connection is None:
            self._connection = open_connection(self._url)
            self._connection.transport.sock.settimeout(ANSWER_SECONDS)
        if self._channel is None:
            self._channel = self._connection.channel()
        return self._channel
