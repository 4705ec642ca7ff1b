"""What a relay leaves that still works, so that the next one waits for no server to let it in."""

from dataclasses import dataclass
from typing import Final

from outbox_relay.broker.publisher import Publisher
from outbox_relay.errors import StoreLost
from outbox_relay.postgres.database import BoundedConnection
from outbox_relay.postgres.store import Store


@dataclass(frozen=True, slots=True)
class Left:
    """A session that holds nothing, and a publisher as good as new; None where there is none."""

    session: BoundedConnection | None = None
    publisher: Publisher | None = None

    def close(self) -> None:
        """Close both: nobody will use them."""
        if self.session is not None:
            self.session.close()
        if self.publisher is not None:
            self.publisher.close()


NOTHING: Final = Left()


def leave(store: Store | None, publisher: Publisher | None) -> Left:
    """Prepare these for the next relay, and close what it could not use."""
    session = None
    if store is not None:
        try:
            session = store.leave()
        except StoreLost:
            store.close()
    if publisher is not None and not publisher.spotless:
        publisher.close()
        publisher = None
    return Left(session, publisher)
