"""What people do to messages, and the record of it: one function of the schema does both.

The messages are chosen with the rights of a reader, the function is called with those of an
operator, in one transaction. It leaves alone what is in another state by then.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from outbox_console.outbox.listing import Place
from outbox_console.people.person import Person
from outbox_console.postgres.database import Database, Session

ACT: Final = """
SELECT {outbox}.act(%(action)s, %(rows)s::bigint[], %(who)s, %(why)s, %(at)s::timestamptz,
                    %(slots)s::smallint[])
"""
#: Newest first. Of the ids only some: there may be ten thousand.
RECORDED: Final = """
SELECT id, at, who, login, action, why, cardinality(ids) AS messages, ids[1:5] AS ids
  FROM {outbox}.action WHERE id < %(before)s ORDER BY id DESC LIMIT %(limit)s
"""

Choose = Callable[[Session], Awaitable[list[Place]]]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A row of the record."""

    id: int
    at: datetime
    who: str
    login: str
    action: str
    why: str
    messages: int
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, and why; `at` is the new time, of reschedule."""

    action: str
    why: str
    at: datetime | None = None


async def act(database: Database, person: Person, order: Order, choose: Choose) -> int:
    """Do it to the messages that `choose` finds; how many were changed."""

    async def work(session: Session) -> int:
        chosen = await choose(session)
        await session.become(person.acts_as)
        changed = await session.value(
            ACT,
            action=order.action,
            rows=[place.id for place in chosen],
            slots=[place.slot for place in chosen],
            who=person.name,
            why=order.why,
            at=order.at,
        )
        return int(changed or 0)

    return await database.change(person.reads_as, work)


async def recorded(session: Session, before: int, limit: int) -> list[Recorded]:
    """The record, newest first, below an id."""
    return await session.fetch(Recorded, RECORDED, before=before, limit=limit)
