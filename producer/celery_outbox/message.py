"""What is captured: the finished wire message, immutable, as it will be stored and published."""

from dataclasses import dataclass
from datetime import datetime


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
