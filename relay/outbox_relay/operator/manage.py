"""Takes messages back, or has them published again, through the functions of the schema.

A thousand messages to a transaction, and safe beside running relays: what a relay holds at this
moment is left alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from outbox_relay.operator import queries
from outbox_relay.operator.session import Session


@dataclass(frozen=True, slots=True)
class Given:
    """An id as it was typed, and the message id it stands for, if there is one."""

    given: str
    message_id: str | None


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead row."""

    id: int
    message_id: str


@dataclass(frozen=True, slots=True)
class Changed:
    """How many rows of a message were changed."""

    message_id: str
    changed: int


def resolve(session: Session, ids: Sequence[str]) -> dict[str, str]:
    """The message id behind each id given, which may be a row's number; without unknown ones."""
    resolved = session.fetch(Given, queries.RESOLVE, ids=list(ids))
    return {each.given: each.message_id for each in resolved if each.message_id}


def dead_pages(session: Session, task: str | None) -> Iterator[list[Dead]]:
    """What is dead now; what dies again meanwhile is not retried for ever."""
    newest = session.value(queries.NEWEST_DEAD)
    above = 0
    while page := session.fetch(Dead, queries.DEAD_PAGE, task=task, above=above, newest=newest):
        yield page
        above = page[-1].id


def apply(session: Session, query: str, message_ids: list[str]) -> dict[str, int]:
    """Run `retry` or `discard` on messages; how many rows of each were changed."""
    rows = session.fetch(Changed, query, ids=message_ids)
    return {row.message_id: row.changed for row in rows}


def replay(session: Session, since: datetime, until: datetime, task: str | None) -> int:
    """Publish again what was sent in an interval, a portion to a transaction; how many messages."""
    replayed = 0
    while end := session.value(queries.PORTION, since=since, until=until):
        replayed += session.value(queries.REPLAY, since=since, until=end, task=task)
        since = end + timedelta(microseconds=1)
    return replayed


def purge(session: Session, older_than: float) -> int:
    """Delete sent messages older than that many seconds, in portions; about how many."""
    total = 0
    while gone := session.value(queries.PURGE, older_than=older_than):
        total += gone
    return total
