"""Celery tasks written to a Postgres outbox, in the caller's own transaction.

Importing this package replaces methods of Celery's own classes, for every app of the process
(`overrides.py`):

* `Task.retry` hands on a rejection by the outbox, instead of discarding the task;
* `apply_async` of signatures, chains, groups and chords, and the call of a chain: what follows a
  task is known as its continuation, a chord takes `outbox=`, and eager tasks wait for a commit, for
  which `Task.apply` is replaced as well;
* the producer of beat's `Scheduler` is the outbox's.

For an app without an outbox all do what they did. Two receivers wait for the start of a worker and
of beat (`worker_init`, `beat_init`), and leave other apps alone. Nothing else of Celery or kombu is
changed.
"""

from importlib.metadata import version

from celery_outbox.app import OutboxCelery, install
from celery_outbox.errors import (
    AmbiguousBlock,
    DatabaseUnavailable,
    InvalidSetting,
    NoChannel,
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
    "AmbiguousBlock",
    "DatabaseUnavailable",
    "InvalidSetting",
    "Message",
    "NoChannel",
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
    "__version__",
    "install",
]

__version__ = version("celery-outbox")
