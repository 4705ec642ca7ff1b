"""Opens the store that the settings name, at the start and after every outage."""

from outbox_relay.errors import SettingsError, StoreLost
from outbox_relay.postgres.store import Store
from outbox_relay.settings import Settings


def open_store(settings: Settings) -> Store:
    """A store on the database of the settings, the secret read anew. Raises StoreLost."""
    try:
        url = settings.database_url.read()
    except SettingsError as error:  # it was readable at the start, so it is being replaced
        raise StoreLost(str(error)) from error
    return Store.connect(
        url, settings.schema, settings.statement_timeout, doorbell=settings.doorbell
    )
