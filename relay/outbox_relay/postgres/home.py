"""Where dead letters come home: asks the outbox about them, on a connection of its own.

One relay of an outbox does so at a time: whoever holds a lock of this session.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from outbox_relay.core.dead_letter import DEAD, UNREGISTERED, DeadLetter
from outbox_relay.core.message import Reason
from outbox_relay.core.route import Route
from outbox_relay.errors import StoreLost
from outbox_relay.postgres.database import BoundedConnection, connect, current_url, translated
from outbox_relay.postgres.inbox import connect_elsewhere
from outbox_relay.postgres.literals import charset_of, storable
from outbox_relay.postgres.statement import Statement
from outbox_relay.postgres.workers import may_read
from outbox_relay.settings import Settings

NAME: Final = "outbox-relay dead letters"

#: The queues of the newest messages: routes repeat, so that few are enough.
RECENT_ROUTES: Final = Statement(
    "recent_routes",
    """
SELECT DISTINCT exchange, routing_key, mandatory, declare::text, 0
FROM (SELECT exchange, routing_key, mandatory, declare
        FROM {outbox}.message ORDER BY id DESC LIMIT 1000) recent
""",
)
ANNOUNCED: Final = "SELECT DISTINCT unnest(queues) FROM inbox.worker"
LOCK: Final = Statement(
    "lock_dead_letters",
    "SELECT pg_try_advisory_lock(hashtextextended('bring_home',"
    " '{outbox}.ready'::regclass::oid::bigint))",
)
BRING_HOME: Final = Statement(
    "bring_home",
    """
SELECT message_id, verdict
FROM {outbox}.bring_home(%(message_ids)s::text[], %(states)s::text[], %(errors)s::text[])
""",
)


class Home:
    """A session; every method raises StoreLost, SchemaError or StatementFailed."""

    def __init__(self, connection: BoundedConnection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._charset = charset_of(connection.info)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connect, the secret read anew."""
        return cls(connect(current_url(settings), NAME, settings.statement_timeout), settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_mine(self) -> bool:
        """Whether no other relay is at it; ours until the session ends."""
        row = self._run(LOCK)[0]
        return bool(row[0])

    def queues(self) -> list[str]:
        """Where dead letters may lie: in `<queue>.dead` of each known queue, and in those set."""
        routes = [Route(*row) for row in self._run(RECENT_ROUTES)]
        names = {name for route in routes for name in route.queues if name}
        names |= self._announced()
        return [*(f"{name}{DEAD}" for name in sorted(names)), *self._settings.dead_letter_queues]

    def _announced(self) -> set[str]:
        """Those that workers consume; none while an inbox in another database is away."""
        try:
            elsewhere = connect_elsewhere(self._settings, NAME)
        except StoreLost:
            return set()
        inbox = elsewhere or self._connection
        try:
            with translated():
                if not may_read(inbox):
                    return set()
                return {name for (name,) in inbox.execute(ANNOUNCED)}
        finally:
            if elsewhere:
                elsewhere.close()

    def bring(self, letters: Sequence[DeadLetter]) -> dict[str, str]:
        """Have them dead in the outbox, committed; the verdict on each message id.

        Where messages of unknown tasks are held, such a one is held again instead.
        """
        ours = {each.message_id: each for each in letters if each.message_id}
        parameters = {
            "message_ids": list(ours),
            "states": ["retry" if self._waits(each) else "dead" for each in ours.values()],
            "errors": [
                storable(
                    f"{Reason.UNKNOWN_TASK}: {each.reason}" if self._waits(each) else each.reason,
                    self._charset,
                )
                for each in ours.values()
            ],
        }
        return dict(self._run(BRING_HOME, parameters)) if ours else {}

    def _waits(self, letter: DeadLetter) -> bool:
        """Whether it waits for a worker that knows its task, as if it had never been sent."""
        return self._settings.hold_unknown and letter.kind == UNREGISTERED

    def close(self) -> None:
        """End the session, and with it the lock."""
        self._connection.close()

    def _run(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        text = statement.in_schema(self._settings.schema).text
        with translated():
            return self._connection.execute(text, parameters).fetchall()
