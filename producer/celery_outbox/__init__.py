"""Celery tasks written to a Postgres outbox, in the caller's own transaction."""

from celery_outbox.app import OutboxCelery, install
from celery_outbox.errors import (
    DatabaseUnavailable,
    InvalidSetting,
    NoTransaction,
    OutboxClosed,
    OutboxError,
    OutboxNotReady,
    RowRefused,
    UnpublishableMessage,
    UnsupportedOption,
    UnusableTarget,
)
from celery_outbox.message import Message
from celery_outbox.outbox import Outbox

__all__ = [
    "DatabaseUnavailable",
    "InvalidSetting",
    "Message",
    "NoTransaction",
    "Outbox",
    "OutboxCelery",
    "OutboxClosed",
    "OutboxError",
    "OutboxNotReady",
    "RowRefused",
    "UnpublishableMessage",
    "UnsupportedOption",
    "UnusableTarget",
    "install",
]
