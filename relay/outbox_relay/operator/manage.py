"""Takes messages back, or has them published again or later, through a function of the schema.

It records who did what and why, in the same transaction (`outbox.action`). A thousand messages to a
transaction, and safe beside running relays: what a relay holds at this moment is left alone.
"""

import getpass
import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from outbox_relay.errors import SettingsError
from outbox_relay.operator import queries
from outbox_relay.operator.session import Session


@dataclass(frozen=True, slots=True)
class Given:
    """An id as it was typed, and the message ids it stands for: mostly one."""

    given: str
    message_ids: list[str]


@dataclass(frozen=True, slots=True)
class Row:
    """A row, and the message in it."""

    id: int
    slot: int
    message_id: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message is stored, or was before it was changed."""

    id: int
    slot: int


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, and why; `at` is the new time, of reschedule."""

    action: str
    why: str = ""
    at: datetime | None = None


def person() -> str:
    """Who acts, as this machine knows them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"[:255]


def resolve(session: Session, ids: Sequence[str]) -> dict[str, str]:
    """The message id behind each id given, which may be a row's number; without unknown ones.

    Raises SettingsError where a number is that of several messages.
    """
    resolved = session.fetch(Given, queries.RESOLVE, ids=list(ids))
    for each in resolved:
        if each.message_ids[1:]:
            raise SettingsError(
                f"{each.given} is the row of {len(each.message_ids)} messages, as after a sequence "
                f"was restarted: give the message id, one of {', '.join(each.message_ids)}"
            )
    return {each.given: each.message_ids[0] for each in resolved if each.message_ids}


def rows_of(session: Session, message_ids: Sequence[str]) -> list[Row]:
    """All rows with these message ids: a task's own retries have its id too."""
    return session.fetch(Row, queries.ROWS_OF, ids=list(message_ids))


def dead_pages(session: Session, task: str | None) -> Iterator[list[Row]]:
    """What is dead now; what dies again meanwhile is not retried for ever."""
    newest = session.value(queries.NEWEST_DEAD)
    above = 0
    while page := session.fetch(Row, queries.DEAD_PAGE, task=task, above=above, newest=newest):
        yield page
        above = page[-1].id


def act(session: Session, order: Order, rows: Sequence[Row]) -> list[Place]:
    """Do it to these rows, and record it; those that were changed."""
    return session.fetch(
        Place,
        queries.ACTED,
        action=order.action,
        rows=[row.id for row in rows],
        slots=[row.slot for row in rows],
        who=person(),
        why=order.why,
        at=order.at,
    )


def by_message(rows: Sequence[Row], changed: Sequence[Place]) -> Counter[str]:
    """How many rows of each message are among those that were changed."""
    known = set(changed)
    return Counter(row.message_id for row in rows if Place(row.id, row.slot) in known)


def replay(
    session: Session, since: datetime, until: datetime, task: str | None, why: str = ""
) -> int:
    """Publish again what was sent in an interval, a portion to a transaction; how many messages."""
    replayed = 0
    while end := session.value(queries.PORTION, since=since, until=until):
        rows = session.fetch(Row, queries.CONFIRMED_ROWS, since=since, until=end, task=task)
        replayed += len(act(session, Order("replay", why), rows))
        since = end + timedelta(microseconds=1)
    return replayed


def purge(session: Session, older_than: float) -> int:
    """Delete sent messages older than that many seconds, in portions; about how many."""
    total = 0
    while gone := session.value(queries.PURGE, older_than=older_than):
        total += gone
    return total
