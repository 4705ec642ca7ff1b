"""Opens the store that the settings name, at the start and after every outage."""

from outbox_relay.postgres.database import BoundedConnection, current_url
from outbox_relay.postgres.store import NAME, Store
from outbox_relay.settings import Settings


def open_store(
    settings: Settings, name: str = NAME, *, left: BoundedConnection | None = None
) -> Store:
    """A store on the database of the settings, the secret read anew. Raises StoreLost.

    `name` is what others see of it in pg_stat_activity. `left` is a session of another store.
    """
    return Store.connect(
        current_url(settings),
        settings.schema,
        settings.statement_timeout,
        doorbell=settings.doorbell,
        name=name,
        fence=settings.fence,
        left=left,
    )
