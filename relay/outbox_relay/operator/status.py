"""Is it flowing, how far behind, is anybody publishing: counts, lag and relays at one moment."""

from dataclasses import asdict, dataclass, field
from math import inf
from typing import Final

from outbox_relay.core.backlog import Stats
from outbox_relay.errors import StoreLost
from outbox_relay.operator import holds, unknown
from outbox_relay.operator.holds import Held, Paused
from outbox_relay.operator.identity import SEAT
from outbox_relay.operator.inbox import inbox_of
from outbox_relay.operator.session import Session
from outbox_relay.operator.unknown import UnknownTask
from outbox_relay.settings import Settings

STATS: Final = """
SELECT pending, scheduled, dead,
       extract(epoch FROM oldest_pending_age)::float8 AS oldest_pending_age, expired
FROM {outbox}.stats
"""

#: Relays name themselves; the name is visible to every login, the rest to some (pg_read_all_stats).
#: Each has another connection at times, for retention: it has no version. Of many outboxes, a relay
#: has one connection to each database by which it is woken.
RELAYS: Final = """
SELECT pid, usename AS login, host(client_addr) AS address,
       extract(epoch FROM clock_timestamp() - backend_start)::float8 AS connected_for,
       application_name AS name
FROM pg_stat_activity
WHERE application_name ~ '^outbox-relay( (seat )?[0-9]| watch$|$)' AND datname = current_database()
ORDER BY pid
"""

#: An inspector may read the counts, and not this.
MAY_READ_FLOW: Final = "SELECT has_table_privilege(%(receipt)s, 'SELECT')"

FLOW: Final = """
SELECT (SELECT extract(epoch FROM clock_timestamp() - max(sent_at))::float8
          FROM {outbox}.receipt) AS last_sent_age,
       (SELECT coalesce(sum(cardinality(ids)), 0)::bigint FROM {outbox}.receipt
         WHERE sent_at > now() - interval '1 minute') AS sent_last_minute
"""


@dataclass(frozen=True, slots=True)
class Counts(Stats):
    """What there is, and what expired of all that is kept."""

    expired: int


@dataclass(frozen=True, slots=True)
class RelaySeen:
    """A relay's connection to the database."""

    pid: int
    login: str
    address: str | None
    connected_for: float | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """What was confirmed lately; None where this login may not know."""

    last_sent_age: float | None = None
    sent_last_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """All of it, at one moment."""

    stats: Counts
    flow: Flow
    relays: list[RelaySeen]
    paused: list[Paused] = field(default_factory=list)
    held_back: list[Held] = field(default_factory=list)
    unknown_tasks: list[UnknownTask] = field(default_factory=list)
    unknown_missing: list[UnknownTask] = field(default_factory=list)

    @property
    def held(self) -> int:
        """About how many of what is pending are held on purpose."""
        return sum(each.messages for each in self.held_back)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        counts = {**asdict(self.stats), **asdict(self.flow)}
        return {
            # JSON has no infinity, which the age of a message can be.
            **{name: None if n in (inf, -inf) else n for name, n in counts.items()},
            "relays_alive": len(self.relays),
            "relays": [asdict(relay) for relay in self.relays],
            "unknown_tasks": [asdict(task) for task in self.unknown_tasks],
            "unknown_missing": [asdict(task) for task in self.unknown_missing],
            "paused": [asdict(pause) for pause in self.paused],
            "held": [asdict(each) for each in self.held_back],
        }


def read(session: Session, settings: Settings) -> Status:
    """The state at this moment; of an inbox that is away, nothing is known."""
    stats = session.fetch(Counts, STATS)[0]
    allowed = session.value(MAY_READ_FLOW, receipt=f'"{session.schema}".receipt')
    flow = session.fetch(Flow, FLOW)[0] if allowed else Flow()
    relays = session.fetch(RelaySeen, RELAYS)
    # Of many outboxes, the relay is who watches; its seats are no relays more.
    relays = [relay for relay in relays if not relay.name.startswith(SEAT)] or relays
    paused, held_back = holds.paused(session), holds.held(session)
    try:
        return Status(stats, flow, relays, paused, held_back, *_unknown(session, settings))
    except StoreLost:
        if not settings.inbox_url.read():
            raise
        return Status(stats, flow, relays, paused, held_back)


def _unknown(session: Session, settings: Settings) -> tuple[list[UnknownTask], list[UnknownTask]]:
    with inbox_of(session, settings) as inbox:
        return unknown.read(session, inbox), unknown.read_missing(session, inbox)
