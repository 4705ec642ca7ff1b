"""Finds the lists and pub/sub channels a message belongs in, as kombu's Redis transport would.

On Redis an exchange is only a set of bindings, and a message whose exchange has none simply
vanishes. So the bindings are looked at first: no queue, no confirm.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import structlog
from amqp.exceptions import ChannelError
from kombu import Exchange, Queue
from kombu.transport.virtual.base import NotEquivalentError
from redis.exceptions import DataError, NoPermissionError, RedisError

from outbox_relay.broker.declines import DECLINES
from outbox_relay.broker.entities import described
from outbox_relay.broker.redis.topics import matches
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.errors import BrokerLost, RelayError

log = structlog.get_logger()

#: How long the bindings of an exchange are cached, in seconds.
BINDINGS_SECONDS: Final = 1.0
#: Beyond so many distinct declarations, all that is remembered is forgotten.
MAX_REMEMBERED: Final = 10_000
#: What kombu raises over an entity that Redis cannot have, or that exists otherwise.
NOT_HERE: Final = (NotEquivalentError, NotImplementedError, LookupError, ValueError, ChannelError)
#: kombu orders messages of a queue by these.
PRIORITIES: Final = range(10)


@dataclass(frozen=True, slots=True)
class Target:
    """One place to put messages: its key, and the command that puts them there."""

    command: bytes
    key: bytes

    @property
    def words(self) -> tuple[bytes, bytes]:
        """What comes before the messages."""
        return self.command, self.key


@dataclass(frozen=True, slots=True)
class Route:
    """Where copies of a message go, by its priority; with `fanout`, to all who listen."""

    fanout: bool
    targets: tuple[tuple[Target, ...], ...]


class _Denied(Exception):
    """The server refused one command; the connection is fine."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Router:
    """What is known of exchanges and bindings; asks kombu's channel for the rest."""

    def __init__(self, channel: Any, *, declare: bool) -> None:
        self._channel = channel
        self._declare = declare
        self._declared: dict[str, str | None] = {}  # what is wrong with it, if anything
        self._types: dict[str, str] = {}
        self._routes: dict[tuple[str, str, bool], Route] = {}
        self._read = 0.0

    def route(self, message: Message) -> Route | Refusal:
        """Where a message goes, or why it can go nowhere. Raises BrokerLost."""
        declare = message.declare
        if declare not in self._declared:
            self._provide(declare)
        if wrong := self._declared[declare]:
            return Refusal(message, Reason.INVALID, wrong)
        now = monotonic()
        if now - self._read > BINDINGS_SECONDS:
            self._routes.clear()
            self._read = now
        key = message.exchange, message.routing_key, message.mandatory
        try:
            route = self._routes.get(key) or self._find(*key)
            if route is None and declare != "[]":
                # What was declared once is gone: the server may have been emptied.
                self._provide(declare)
                route = self._find(*key)
        except _Denied as denied:
            return Refusal(message, denied.reason, str(denied))
        except RelayError:
            raise
        except Exception as error:  # bindings that cannot be read must not stop other exchanges
            detail = f"exchange {message.exchange!r}: cannot be read: {type(error).__name__}"
            return Refusal(message, Reason.REJECTED, detail)
        if route is None:
            return Refusal(message, Reason.UNROUTABLE, _nowhere(message))
        self._routes[key] = route
        return route

    def prefixed(self, name: str) -> bytes:
        """A name as the server knows it."""
        return f"{self._channel.global_keyprefix}{name}".encode()

    def _find(self, exchange: str, routing_key: str, mandatory: bool) -> Route | None:
        if not exchange:
            return self._to_queues([routing_key] if routing_key else [])
        channel = self._channel
        bindings = self._ask(f"exchange {exchange!r}", lambda: channel.get_table(exchange))
        table = [binding for binding in bindings if len(binding) == 3]
        type_ = self._types.get(exchange) or _guess(table, mandatory)
        if type_ == "fanout":
            topic = self.prefixed(channel._get_publish_topic(exchange, routing_key))
            target = Target(b"PUBLISH", topic)
            return Route(fanout=True, targets=((target,),) * len(PRIORITIES))
        if type_ == "topic":
            # As kombu does, to which a binding without a pattern matches everything.
            queues = {q for key, how, q in table if not how or matches(key, routing_key)}
        else:
            queues = channel.exchange_types[type_].lookup(table, exchange, routing_key, None)
        return self._to_queues(sorted(filter(None, queues)))

    def _to_queues(self, queues: Iterable[str]) -> Route | None:
        by_queue = [self._lists(queue) for queue in queues]
        if not by_queue:
            return None
        return Route(fanout=False, targets=tuple(zip(*by_queue, strict=True)))

    def _lists(self, queue: str) -> list[Target]:
        """The lists that make up a queue, one for each priority."""
        channel = self._channel
        steps = [channel.priority(priority) for priority in PRIORITIES]
        keys = [self.prefixed(f"{queue}{channel.sep}{step}" if step else queue) for step in steps]
        return [Target(b"LPUSH", key) for key in keys]

    def _provide(self, declare: str) -> None:
        """Declare what a message asks for, and learn the types of its exchanges."""
        if len(self._declared) > MAX_REMEMBERED:
            self._declared.clear()
        self._declared[declare] = None
        try:
            entities = described(declare)
            # kombu would not bind again what it remembers having bound.
            self._channel.state.clear()
            for entity in entities:
                for exchange in _exchanges(entity):
                    if exchange.type in self._channel.exchange_types:
                        self._types[exchange.name] = exchange.type
                if self._declare:
                    self._make(entity)
        except RelayError:
            raise
        except ValueError as error:
            self._declared[declare] = str(error)
        except Exception as error:  # kombu's, over a value it cannot use: that row's fault
            self._declared[declare] = f"declare cannot be carried out: {type(error).__name__}"

    def _make(self, entity: Queue | Exchange) -> None:
        """Declare. What Redis cannot have, such as a headers exchange, is logged."""
        try:
            self._ask(f"declaring {entity.name!r}", entity(self._channel).declare)
        except (*NOT_HERE, _Denied) as error:
            DECLINES.add(entity.name, repr(error))

    def _ask(self, what: str, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except NoPermissionError as error:
            raise _Denied(Reason.FORBIDDEN, f"{what}: {error}") from error
        except DataError:
            raise  # redis-py's, over a value that no command can carry
        except (OSError, RedisError) as error:
            if "WRONGTYPE" in str(error):
                raise _Denied(Reason.REJECTED, f"{what}: {error}") from error
            raise BrokerLost(f"{what}: {error or type(error).__name__}") from error


def _exchanges(entity: Queue | Exchange) -> list[Exchange]:
    if isinstance(entity, Exchange):
        return [entity]
    named = [entity.exchange, *(bound.exchange for bound in entity.bindings or ())]
    return [exchange for exchange in named if exchange is not None and exchange.name]


def _guess(table: list[tuple[str, str, str]], mandatory: bool) -> str:
    """The type of an exchange nobody has declared to us; Redis knows only its bindings."""
    if any(pattern for _, pattern, _ in table):
        return "topic"
    return "direct" if mandatory else "fanout"


def _nowhere(message: Message) -> str:
    if not message.exchange:
        return "neither exchange nor routing key: no queue could be meant"
    return (
        f"no queue is bound to exchange {message.exchange!r} "
        f"with routing key {message.routing_key!r}"
    )
