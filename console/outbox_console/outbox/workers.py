"""Who works on the outbox: relays, as they are connected, and workers, as they announce themselves.

Workers tell in `inbox.worker`, which may be in another database, or nowhere: then nothing is known.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from outbox_console.postgres.database import Session

#: Relays name themselves, which every login can see; the rest some can (pg_read_all_stats).
#: A relay's other connection, which it has at times for retention, has no version; nor has that by
#: which a relay of many outboxes is woken, and counted: its seats are no relays more.
RELAYS: Final = """
SELECT pid, usename AS login, host(client_addr) AS address, backend_start AS since,
       application_name AS name
  FROM pg_stat_activity
 WHERE application_name ~ '^outbox-relay( [0-9]| watch$|$)' AND datname = current_database()
 ORDER BY application_name DESC, pid
"""
#: Sampled where very much waits.
HELD: Final = """
SELECT {outbox}.rough_count('{outbox}.ready', 'lease_until > now()')
"""
KNOWN: Final = """
SELECT coalesce((
    SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'inbox' AND c.relname = 'worker'), false)
"""
#: The lost are kept for a day.
WORKERS: Final = """
SELECT node, queues, tasks, seen_at, alive_until > now() AS alive
  FROM inbox.worker ORDER BY alive_until > now() DESC, node LIMIT 500
"""
_VERSION: Final = re.compile(r"outbox-relay (\d\S*) [\w-]{4}\.([\w-]{6})\.([\w-]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay's connection; what this login may not see is None."""

    pid: int
    login: str | None
    address: str | None
    since: datetime | None
    name: str

    @property
    def version(self) -> str:
        """Its version; empty for the connection that it has for retention."""
        found = _VERSION.match(self.name)
        return found[1] if found else ""

    @property
    def watches(self) -> bool:
        """Whether it serves many outboxes, and this one when there is something to do."""
        return self.name.endswith(" watch")

    @property
    def broker(self) -> str:
        """The same for relays that publish to the same place: no name, and no secret."""
        found = _VERSION.match(self.name)
        return found[2] if found else ""

    @property
    def settings(self) -> str:
        """The same for relays that are set alike."""
        found = _VERSION.match(self.name)
        return found[3] if found else ""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker says of itself."""

    node: str
    queues: list[str]
    tasks: list[str]
    seen_at: datetime
    alive: bool


@dataclass(frozen=True, slots=True)
class Crew:
    """All of them. `workers` is None where this database does not know."""

    relays: list[Relay]
    held: int
    workers: list[Worker] | None


async def read(session: Session) -> Crew:
    """Who is there at this moment."""
    relays = await session.fetch(Relay, RELAYS)
    held = int(await session.value(HELD))
    return Crew(relays, held, await workers(session))


async def workers(session: Session) -> list[Worker] | None:
    """The workers alone; None where nothing can be known of them."""
    if not await session.value(KNOWN):
        return None
    return await session.fetch(Worker, WORKERS)
