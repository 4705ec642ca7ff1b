"""How a seat reaches its servers: with what others have left, else both at a time.

What was left and does not work any more costs a moment, and nothing else: it is replaced.
"""

from outbox_relay.broker.opening import Background
from outbox_relay.broker.publisher import Open, Publisher
from outbox_relay.errors import BrokerLost
from outbox_relay.loop.left import Left
from outbox_relay.operator.identity import Identity
from outbox_relay.postgres.database import BoundedConnection
from outbox_relay.postgres.open import open_store
from outbox_relay.postgres.store import Store
from outbox_relay.settings import Settings


class Openings:
    """Those of one seat, for its thread."""

    def __init__(self, settings: Settings, open_publisher: Open) -> None:
        self._settings, self._open_publisher = settings, open_publisher
        self._session: BoundedConnection | None = None
        self._left: Publisher | None = None
        self._ahead: Background[Publisher] | None = None

    def go_on_with(self, left: Left) -> None:
        """Others have left these."""
        self._session, self._left = left.session, left.publisher

    def begin(self) -> None:
        """If no publisher is left, open one while the store is opened."""
        if self._left is None:
            self._ahead = Background(self._open_publisher, lambda publisher: publisher.close())

    def store(self) -> Store:
        """As `open_store` does."""
        session, self._session = self._session, None
        try:
            return open_store(self._settings, Identity.of(self._settings).seat, left=session)
        except BaseException:
            if session is not None:
                session.close()
            raise

    def publisher(self, *, for_suspects: bool = False, elsewhere: bool = False) -> Publisher:
        """As `publisher.Open` does."""
        if not for_suspects:
            if (left := self._take_left()) is not None:
                return left
            if self._ahead is not None:
                ahead, self._ahead = self._ahead, None
                return ahead.wait()
        return self._open_publisher(for_suspects=for_suspects, elsewhere=elsewhere)

    def close(self) -> None:
        """Leave nothing open that was not asked for."""
        Left(self._session, self._left).close()
        if self._ahead is not None:
            self._ahead.abandon()

    def _take_left(self) -> Publisher | None:
        """What was left, if its broker still is there."""
        if (left := self._left) is None:
            return None
        self._left = None
        try:
            left.poll(0)
            if left.spotless:
                return left
        except BrokerLost:
            pass
        left.close()
        return None
