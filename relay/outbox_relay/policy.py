"""What rows may ask for. Pure: what is denied becomes dead, with a reason that names the setting.

Whoever may insert a row has it published with the relay's rights on the broker, and has workers
unpack its body. So a row names no content type whose decoder runs code, no exchange that is closed
to the outbox, and no header by which a broker does more than the columns say.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from kombu import Exchange

from outbox_relay.entities import described
from outbox_relay.message import Message, Reason, Refusal

#: How the default exchange, whose name is empty, is written; RabbitMQ's permissions say so too.
DEFAULT_EXCHANGE: Final = "amq.default"
#: By these a row reaches further than it says: RabbitMQ also routes by the headers CC and BCC, and
#: vouches for the property user_id, which can only be the relay's own.
RESERVED: Final = frozenset({"CC", "BCC", "user_id"})
#: Arguments of a queue or an exchange that name another exchange messages may go to.
FORWARDING: Final = ("x-dead-letter-exchange", "alternate-exchange")
#: The longest name from a row that is repeated in a reason.
SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Names:
    """Names a setting allows; a `*` in one stands for any text."""

    patterns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Names":
        """From names separated by commas."""
        patterns = tuple(name for each in text.split(",") if (name := each.strip()))
        if not patterns:
            raise ValueError("give names, separated by commas")
        return cls(patterns)

    @property
    def everything(self) -> bool:
        """Whether no name is missing."""
        return "*" in self.patterns

    def __contains__(self, name: str) -> bool:
        return any(
            re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL)
            for pattern in self.patterns
        )


ANY: Final = Names(("*",))
#: Data that is only data. Missing on purpose: pickle (application/x-python-serialize) and YAML.
PLAIN_DATA: Final = Names.parse(
    "application/json, application/*+json, application/x-msgpack, application/msgpack, "
    "application/vnd.msgpack, application/data, application/octet-stream, application/text, "
    "application/cbor, application/*+cbor, application/avro, avro/*, application/protobuf, "
    "application/x-protobuf, application/vnd.google.protobuf, application/xml, application/*+xml, "
    "text/plain, text/html, text/csv, text/xml"
)


def reserved_but(text: str) -> frozenset[str]:
    """The reserved names that remain when those in `text` are allowed."""
    allowed = {name for each in text.split(",") if (name := each.strip())}
    if unknown := allowed - RESERVED:
        raise ValueError(f"{min(unknown)!r} is not reserved; {', '.join(sorted(RESERVED))} are")
    return RESERVED - allowed


class Policy:
    """What one relay lets pass."""

    def __init__(self, content_types: Names, exchanges: Names) -> None:
        self._exchanges = exchanges
        # Looked at once each: a batch has few kinds, and their names come from rows without end.
        self._data = lru_cache(1024)(lambda name: not name or _essence(name) in content_types)
        self._closed = lru_cache(1024)(self._closed_exchange)

    def sort(self, messages: list[Message]) -> tuple[list[Message], list[Refusal]]:
        """Those that may be published, and the others with what is wrong with them."""
        types = {kind for kind in {m.content_type for m in messages} if not self._data(kind)}
        routes: dict[tuple[str, str], str] = {}
        if not self._exchanges.everything:
            for route in {(m.exchange, m.declare) for m in messages}:
                if (closed := self._closed(*route)) is not None:
                    routes[route] = closed
        if not types and not routes:
            return messages, []
        allowed, denied = [], []
        for message in messages:
            if message.content_type in types:
                detail = f"content type {_shown(message.content_type)} is not among"
                detail += " OUTBOX_ALLOW_CONTENT_TYPES"
            elif (closed := routes.get((message.exchange, message.declare))) is not None:
                detail = f"exchange {_shown(closed)} is not among OUTBOX_ALLOW_EXCHANGES"
            else:
                allowed.append(message)
                continue
            denied.append(Refusal(message, Reason.DENIED, detail))
        return allowed, denied

    def _closed_exchange(self, exchange: str, declare: str) -> str | None:
        """The first exchange this row has to do with that it may not name."""
        named = [exchange, *_declared(declare)]
        return next((n for n in named if (n or DEFAULT_EXCHANGE) not in self._exchanges), None)


def _essence(content_type: str) -> str:
    """The name without parameters such as `; charset=utf-8`, whose case has no meaning."""
    return content_type.partition(";")[0].strip().lower()


def _declared(declare: str) -> Iterable[str]:
    """Every exchange a declaration creates, binds to, or forwards to."""
    try:
        entities = described(declare)
    except ValueError:
        return  # refused as invalid, before anything is declared
    for entity in entities:
        if isinstance(entity, Exchange):
            yield entity.name
            arguments = entity.arguments
        else:
            # Every queue is on the default exchange anyway: that grants nothing.
            exchanges = [entity.exchange, *(each.exchange for each in entity.bindings or ())]
            yield from (each.name for each in exchanges if each is not None and each.name)
            arguments = entity.queue_arguments
        yield from (str(arguments[key]) for key in FORWARDING if arguments and key in arguments)


def _shown(name: str) -> str:
    return repr(name[:SHOWN] or DEFAULT_EXCHANGE)
