"""Opens the store that the settings name, at the start and after every outage."""

from outbox_relay.errors import SettingsError, StoreLost
from outbox_relay.postgres.store import NAME, Store
from outbox_relay.settings import Settings


def open_store(settings: Settings, name: str = NAME) -> Store:
    """A store on the database of the settings, the secret read anew. Raises StoreLost.

    `name` is what others see of it in pg_stat_activity.
    """
    try:
        url = settings.database_url.read()
    except SettingsError as error:  # it was readable at the start, so it is being replaced
        raise StoreLost(str(error)) from error
    return Store.connect(
        url, settings.schema, settings.statement_timeout, doorbell=settings.doorbell, name=name
    )
