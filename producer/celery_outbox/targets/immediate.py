"""What targets have in common that insert each message as it is sent: nothing is left for later."""

from celery_outbox.message import Parcel
from celery_outbox.statements.commands import Outcome
from celery_outbox.targets.target import Target


class Immediate:
    """A target without a buffer. See `Target`."""

    buffers = False

    def put_alone(self: Target, message: Parcel) -> Outcome:
        """Insert the message."""
        return self.put(message)

    def put_many(self: Target, message: Parcel) -> Outcome:
        """Insert the message."""
        return self.put(message)

    def flush(self) -> None:
        """Do nothing: all is inserted."""

    def leave(self, *, failed: bool) -> None:
        """Do nothing: all is inserted."""

    async def aleave(self, *, failed: bool) -> None:
        """Do nothing: all is inserted."""

    def discard(self) -> None:
        """Do nothing: what rolls back takes its rows along."""
