"""What is captured: the finished wire message, immutable, as it will be stored and published."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One row of `outbox.message`: all a relay needs, nothing it would have to decode.

    `headers`, `properties` and `declare` are JSON text, stored to the letter. What AMQP can carry
    and JSON cannot (bytes, times, decimals) is tagged as `kombu.utils.json` tags it.
    """

    message_id: str
    task: str
    exchange: str
    routing_key: str
    headers: str
    properties: str
    body: bytes
    content_type: str
    content_encoding: str
    mandatory: bool
    declare: str
    available_at: datetime | None
    expires_at: datetime | None
    ordering_key: str | None = None
    dedup_key: str | None = None


class Filled(NamedTuple):
    """In what one message differs from others that were sent alike."""

    message_id: str
    headers: str
    properties: str
    body: bytes


class Buffer(Protocol):
    """What keeps messages until they are stored."""

    def extend_last(self, alike: "Alike", filled: Filled) -> bool:
        """Add a message to those that came last, if these are they, and it is not enough yet."""


@dataclass(eq=False, slots=True)
class Alike:
    """Messages that differ in nothing but what is listed here, in the order they were sent in.

    To whoever stores it it is one message: it has one destination, and is stored whole or not at
    all. None of them has a `dedup_key`.
    """

    #: What they have in common; its own id, headers, properties and body count for nothing.
    like: Message
    #: Never empty. Nobody adds to it once it is out of its buffer.
    filled: list[Filled]
    #: What keeps it, or has kept it last.
    buffer: Buffer | None = None

    def grow(self, filled: Filled) -> bool:
        """Add a message, if none has been sent since that could come between."""
        return self.buffer is not None and self.buffer.extend_last(self, filled)

    @property
    def task(self) -> str:
        """The name they share."""
        return self.like.task

    @property
    def message_id(self) -> str:
        """The id of the first."""
        return self.filled[0].message_id

    @property
    def dedup_key(self) -> None:
        """None: of messages with the same key all but one would be dropped."""
        return None


#: What a target or a database is given to store.
Parcel = Message | Alike


def size_of(message: Message | Filled) -> int:
    """Return about how many bytes a message takes that are its own."""
    return len(message.body) + len(message.headers) + len(message.properties)
