"""What an outbox holds, counted over a connection that nothing else waits for.

A count takes its time where a table is large, bloated or locked, up to the deadline of a statement.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from outbox_relay.core.backlog import Counts, HeldBack, Stats, Upkeep
from outbox_relay.errors import SchemaError, StatementFailed
from outbox_relay.postgres.chores import STATS, UPKEEP
from outbox_relay.postgres.database import connect, current_url
from outbox_relay.postgres.holds import ENDLESS, HELD
from outbox_relay.postgres.session import Session
from outbox_relay.settings import Settings

NAME: Final = "outbox-relay counts"
T = TypeVar("T")


class Counter(Session):
    """Counts what one schema holds. Raises StoreLost where the database is gone."""

    @classmethod
    def connect(cls, url: str, schema: str, statement_timeout: float) -> "Counter":
        """Connect for the counts of this schema."""
        return cls(connect(url, NAME, statement_timeout), schema)

    @classmethod
    def open(cls, settings: Settings) -> "Counter":
        """The same for the outbox of the settings, the secret read anew."""
        return cls.connect(current_url(settings), settings.schema, settings.statement_timeout)

    def of(self, schema: str) -> "Counter":
        """The same connection, for another schema."""
        return Counter(self._connection, schema)

    def stats(self) -> Stats:
        """How many messages, and how far behind; cheap on any backlog."""
        return Stats(*self._run(STATS)[0])

    def upkeep(self) -> Upkeep:
        """Size, dead rows and horizon; cheap as well."""
        return Upkeep(*self._run(UPKEEP)[0])

    def held_back(self) -> HeldBack:
        """What is held on purpose, and for how long somebody may have forgotten it."""
        counts = tuple((str(target), int(messages)) for target, messages in self._run(HELD))
        return HeldBack(counts, float(self._run(ENDLESS)[0][0]))

    def counts(self, *, whole: bool = True) -> Counts:
        """All of it, or how many messages; what could not be counted hides nothing else."""
        failures: dict[str, str] = {}

        def part(name: str, count: Callable[[], T]) -> T | None:
            try:
                return count()
            except (StatementFailed, SchemaError) as error:
                failures[name] = str(error)
                return None

        return Counts(
            part("stats", self.stats),
            part("upkeep", self.upkeep) if whole else None,
            part("held", self.held_back) if whole else None,
            tuple(failures.items()),
        )
