"""Where tasks that a test runs store what joins no transaction: with the test, not in a database.

Neither a rollback of theirs takes it along, nor is it committed behind the test's back.
"""

from celery import Celery

from celery_outbox import settings
from celery_outbox.message import Message, Parcel
from celery_outbox.statements.commands import Outcome
from celery_outbox.stores.database import Database


class Kept(Database):
    """The database of an app while a test runs its tasks.

    With Django, what is stored in its transaction goes there, which is the test's as well.
    """

    def __init__(self, app: Celery) -> None:
        super().__init__(app, settings.schema(app))
        #: What was stored, and what its sender was told of it.
        self._messages: list[tuple[Parcel, Outcome]] = []

    def is_configured(self) -> bool:
        """Tell that there is one."""
        return True

    def store(self, message: Parcel) -> Outcome:
        """Store a message."""
        return super().store(message) if self.uses_django else self._keep(message)

    def store_apart(self, message: Parcel) -> Outcome:
        """Store a message that no rollback takes along."""
        return self._keep(message)

    def store_once(self, message: Message, seconds: float) -> Outcome:  # noqa: ARG002 - never fails
        """Store a message that no rollback takes along."""
        return self._keep(message)

    def _keep(self, message: Parcel) -> Outcome:
        outcome = Outcome(message)
        self._messages.append((message, outcome))
        return outcome

    def take_all(self) -> list[tuple[Parcel, Outcome]]:
        """Hand over what is kept."""
        taken, self._messages = self._messages, []
        return taken
