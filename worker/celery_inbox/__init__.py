"""Makes the database effects of a redelivered Celery task happen once."""

from celery_inbox.errors import InboxError, InboxMissing, MessageIdReused, ResultNotJSON
from celery_inbox.reliability import reliable
from celery_inbox.retention import purge
from celery_inbox.task import idempotent

__all__ = [
    "InboxError",
    "InboxMissing",
    "MessageIdReused",
    "ResultNotJSON",
    "idempotent",
    "purge",
    "reliable",
]
