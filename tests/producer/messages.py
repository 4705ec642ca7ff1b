"""Messages that no send made, for tests of what stores them."""

from celery_outbox import Message


def message(message_id: str, dedup_key: str | None = None) -> Message:
    """A row with this id and key."""
    return Message(
        message_id=message_id,
        task="shop.add",
        exchange="",
        routing_key="celery",
        headers="{}",
        properties="{}",
        body=b"",
        content_type="application/json",
        content_encoding="utf-8",
        mandatory=True,
        declare="[]",
        available_at=None,
        expires_at=None,
        dedup_key=dedup_key,
    )
