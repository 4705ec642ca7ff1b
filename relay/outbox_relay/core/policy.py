"""What rows may ask for. Pure: what is denied becomes dead, with a reason that names the setting.

Whoever may insert a row has it published with the relay's rights on the broker, and has workers
unpack its body. So a row names no content type whose decoder runs code, no exchange that is closed
to the outbox, and no header by which a broker does more than the columns say.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from outbox_relay.core import declaration
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.settings.names import Names

#: How the default exchange, whose name is empty, is written; RabbitMQ's permissions say so too.
DEFAULT_EXCHANGE: Final = "amq.default"
#: The longest name from a row that is repeated in a reason.
MAX_SHOWN: Final = 60


class Policy:
    """What one relay lets pass."""

    def __init__(self, content_types: Names, exchanges: Names) -> None:
        self._exchanges = exchanges
        # Cached, because a batch has few kinds; bounded, because rows may name any number of them.
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
        """The first exchange that this row names and may not name."""
        named = [exchange, *_declared(declare)]
        return next((n for n in named if (n or DEFAULT_EXCHANGE) not in self._exchanges), None)


def _essence(content_type: str) -> str:
    """The name without parameters such as `; charset=utf-8`, whose case has no meaning."""
    return content_type.partition(";")[0].strip().lower()


def _declared(declare: str) -> Iterable[str]:
    """Every exchange that a row's declarations have to do with."""
    try:
        entities = declaration.entities(declare)
    except ValueError:
        return []  # refused as invalid, before anything is declared
    return [name for entity in entities for name in declaration.exchanges(entity)]


def _shown(name: str) -> str:
    return repr(name[:MAX_SHOWN] or DEFAULT_EXCHANGE)
