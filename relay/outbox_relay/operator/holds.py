"""What people have paused, and what waits by where it goes: read, and changed."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from outbox_relay.operator.manage import person
from outbox_relay.operator.session import Session, Time

PAUSED: Final = """
SELECT target, kind, pattern, reason, since, until, who, messages
FROM {outbox}.paused ORDER BY target
"""
ROUTES: Final = """
SELECT exchange, routing_key, waiting, held, held_by FROM {outbox}.route
"""
#: Who may read the counts alone, may not read this.
MAY_READ_IT: Final = "SELECT coalesce(has_table_privilege(to_regclass(%(view)s), 'SELECT'), false)"
PAUSE: Final = """
SELECT {outbox}.pause(%(queue)s, %(exchange)s, %(task)s, %(everything)s, %(reason)s,
                      %(until)s::timestamptz, %(who)s)
"""
RESUME: Final = """
SELECT {outbox}.resume(%(queue)s, %(exchange)s, %(task)s, %(everything)s, %(reason)s, %(who)s)
"""


RATES: Final = """
SELECT target, kind, pattern, per_second, burst, reason, since, who, messages
FROM {outbox}.rate ORDER BY target
"""
SET_RATE: Final = """
SELECT {outbox}.set_rate(%(per_second)s::float8, %(burst)s::float8, %(queue)s, %(exchange)s,
                         %(task)s, %(everything)s, %(reason)s, %(who)s)
"""


#: What relays have set aside, by what holds it, in one look: pauses, full queues, rates.
HELD: Final = """
SELECT target, messages FROM {outbox}.held_counts() ORDER BY messages DESC, target LIMIT 100
"""


@dataclass(frozen=True, slots=True)
class Held:
    """About how many messages wait for one target: a pause, a full queue, or a rate."""

    target: str
    messages: int


@dataclass(frozen=True, slots=True)
class Limited:
    """How many messages a second may go there, and about how many wait for their turn."""

    target: str
    kind: str
    pattern: str
    per_second: float
    burst: float
    reason: str
    since: Time
    who: str
    messages: int


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause that is in force, and about how many messages wait for it."""

    target: str
    kind: str
    pattern: str
    reason: str
    since: Time
    until: Time | None
    who: str
    messages: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """About how many messages wait to go one way, and how many of them are held, by what."""

    exchange: str
    routing_key: str
    waiting: int
    held: int
    held_by: list[str]


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be paused or resumed: one of these."""

    queue: str | None = None
    exchange: str | None = None
    task: str | None = None
    everything: bool = False


def paused(session: Session) -> list[Paused]:
    """What is paused; nothing where this login may not know."""
    if not session.value(MAY_READ_IT, view=f'"{session.schema}".paused'):
        return []
    return session.fetch(Paused, PAUSED)


def held(session: Session) -> list[Held]:
    """What is held on purpose, most first; nothing where this login may not know."""
    if not session.value(MAY_READ_IT, view=f'"{session.schema}".paused'):
        return []
    return session.fetch(Held, HELD)


def waiting(session: Session) -> list[Waiting]:
    """What waits, by where it goes: those with most messages first."""
    return session.fetch(Waiting, ROUTES)


def limited(session: Session) -> list[Limited]:
    """The rates that are limited."""
    return session.fetch(Limited, RATES)


def set_rate(
    session: Session, target: Target, reason: str, per_second: float | None, burst: float | None
) -> str | None:
    """At most so many a second, or as many as there are; None where there was no limit to end."""
    asked = {**asdict(target), "who": person(), "reason": reason}
    made: str | None = session.value(SET_RATE, per_second=per_second, burst=burst, **asked)
    return made


def pause(session: Session, target: Target, reason: str, until: datetime | None) -> str:
    """Hold it; the target as the database writes it. Raises StatementFailed for what it refuses."""
    asked = {**asdict(target), "who": person(), "reason": reason, "until": until}
    return str(session.value(PAUSE, **asked))


def resume(session: Session, target: Target, reason: str) -> int:
    """Hold it no longer; how many pauses that ends."""
    return int(session.value(RESUME, **asdict(target), who=person(), reason=reason))
