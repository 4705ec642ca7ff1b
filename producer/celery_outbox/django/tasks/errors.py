"""What can be wrong with a Django task beside its own errors."""

from typing import Any

from celery_outbox.errors import OutboxError


class UnknownTask(OutboxError):
    """{path} is no task that this process has: {reason}.

    Run the same code in workers as where it is enqueued, or keep the name until none is left.
    """


class UnreadableOutbox(OutboxError):
    """What waits in the outbox of schema {schema} cannot be read, and with it the result of a task.

    The database role may not, or the tables are not there. Run `outbox-migrate grant`, then GRANT
    outbox_reader TO the role, which by outbox_producer can only enqueue.
    """


class Raised(Exception):
    """Stands in Celery's result backend for what a Django task raised, with its record."""

    def __init__(self, record: Any = None) -> None:
        super().__init__(record)
        self.record = record

    def __str__(self) -> str:
        """Name what was raised; the record has arguments."""
        errors = self.record.get("errors") if isinstance(self.record, dict) else None
        return str(errors[-1]["exception_class_path"]) if errors else ""

    __repr__ = __str__
