"""Where the inbox is that workers write to: beside the outbox, or in a database of its own."""

from outbox_relay.errors import SettingsError, StoreLost
from outbox_relay.postgres.database import BoundedConnection, connect
from outbox_relay.settings import Settings


def connect_elsewhere(settings: Settings, name: str) -> BoundedConnection | None:
    """A connection to it, the secret read anew; None where the outbox' own database has it.

    Raises StoreLost.
    """
    try:
        url = settings.inbox_url.read()
    except SettingsError as error:  # it was readable at the start
        raise StoreLost(str(error)) from error
    return connect(url, name, settings.statement_timeout) if url else None
