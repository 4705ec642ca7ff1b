"""Makes the database effects of a redelivered Celery task happen once."""

from importlib.metadata import version

from celery_inbox.announcing import announce
from celery_inbox.errors import (
    InboxError,
    InboxMissing,
    MessageIdReused,
    ResultNotJSON,
    TransactionEnded,
    UnusableConnection,
)
from celery_inbox.receipt import receipts
from celery_inbox.reliability import reliable
from celery_inbox.retention import purge
from celery_inbox.task import idempotent

__all__ = [
    "InboxError",
    "InboxMissing",
    "MessageIdReused",
    "ResultNotJSON",
    "TransactionEnded",
    "UnusableConnection",
    "__version__",
    "announce",
    "idempotent",
    "purge",
    "receipts",
    "reliable",
]

__version__ = version("celery-inbox")
