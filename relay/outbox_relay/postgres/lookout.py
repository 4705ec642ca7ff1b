"""One session that looks after many schemas of a database: it is rung for all, and asks for all.

For each schema it takes the place of a relay that sleeps: `postgres/doorbell.py` has the protocol.
Where many are asked at once, a lock that somebody holds on one of them is waited for only shortly.
Raises StoreLost where the database is gone; what is wrong with one schema alone is that one's.
"""

import select
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple

from psycopg.sql import SQL, Identifier

from outbox_relay.errors import SchemaError, StatementFailed
from outbox_relay.postgres.database import BoundedConnection, connect, translated
from outbox_relay.postgres.doorbell import BELL, obstacle
from outbox_relay.postgres.pipeline import Pipeline, Query
from outbox_relay.postgres.session import Session
from outbox_relay.postgres.statement import Statement
from outbox_relay.settings.values import Doorbell

#: As many schemas are asked about in one statement; the server's plan grows with them.
TOGETHER: Final = 50
#: So many of these statements are kept prepared, one of them for each schema by itself.
MAX_GLANCES: Final = 200
#: How long a look waits for somebody's lock on a table, in milliseconds.
LOCK_TIMEOUT_MS: Final = 200

#: As a sleeping relay looks, from the head: whether there is work, the seconds until something is
#: due, whether anything waits for its route or a hold, and which table it is. The text is the same
#: whoever is asked for: of the others, nothing is read.
GLANCE: Final = """
SELECT {number},
       EXISTS (SELECT FROM {outbox}.ready WHERE lease_until < now())
       OR EXISTS (SELECT FROM {outbox}.lane_news),
       (SELECT extract(epoch FROM available_at - clock_timestamp())::double precision
        FROM {outbox}.parked WHERE state <> 'dead' ORDER BY available_at LIMIT 1),
       EXISTS (SELECT FROM {outbox}.parked WHERE route IS NOT NULL),
       '{outbox}.ready'::regclass::oid::bigint
WHERE {number} = ANY (%(asked)s::int[])
"""
TRY_LOCKS: Final = "SELECT key, pg_try_advisory_lock(key) FROM unnest(%s::bigint[]) AS key"
UNLOCK: Final = "SELECT pg_advisory_unlock(key) FROM unnest(%s::bigint[]) AS key"


#: Is told the schema that could not be asked, and why.
Broken = Callable[[str, str], None]


class Glance(NamedTuple):
    """What a look at a schema has shown; None for `due` while nothing waits for a time."""

    work: bool
    due: float | None
    waits: bool


class _Schema:
    """What the session holds of one schema."""

    def __init__(self, bell: int, watch: int, channel: str) -> None:
        self.bell, self.watch, self.channel = bell, watch, channel
        self.table = 0
        self.watching = self.hung = self.anew = False


class Lookout:
    """A session for many schemas; the names are those in the database."""

    def __init__(self, connection: BoundedConnection, doorbell: Doorbell) -> None:
        self._connection = connection
        self._wanted = doorbell
        self._schemas: dict[str, _Schema] = {}
        self._rung: set[str] = set()
        self._pipeline = Pipeline(connection)
        self._glances: dict[tuple[str, ...], Statement] = {}
        self._prepared = 0
        self._by_channel: dict[str, str] = {}
        #: Why it can be rung for none; empty where it can.
        self.deaf = "OUTBOX_DOORBELL is off" if doorbell == "off" else ""
        connection.add_notify_handler(lambda heard: self._hear(heard.channel))

    @classmethod
    def connect(
        cls, url: str, statement_timeout: float, *, doorbell: Doorbell, name: str
    ) -> "Lookout":
        """Connect as `name`. Raises StoreLost."""
        connection = connect(url, name, statement_timeout, prepare=True)
        try:
            with translated():
                connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        except BaseException:
            connection.close()
            raise
        return cls(connection, doorbell)

    def add(self, schema: str) -> None:
        """Look after this one too. Raises SchemaError or StatementFailed over what it is."""
        Session(self._connection, schema).check_version()
        with translated():
            told = self._connection.execute(BELL.in_schema(schema).text.encode()).fetchall()
        bell, watch, channel, process, prepared = told[0]
        if self._wanted == "auto" and not self.deaf:
            self.deaf = obstacle(self._connection, process, prepared) or ""
        self._schemas[schema] = _Schema(bell, watch, channel)
        self._by_channel[channel] = schema
        if not self.deaf:
            with translated():
                self._connection.execute(SQL("LISTEN {}").format(Identifier(channel)))

    def drop(self, schema: str) -> None:
        """Look after this one no more."""
        if (known := self._schemas.get(schema)) is None:
            return
        self.get_up([schema])
        del self._schemas[schema]
        self._rung.discard(schema)
        if self._by_channel.get(known.channel) == schema:
            del self._by_channel[known.channel]
            with translated():
                self._connection.execute(SQL("UNLISTEN {}").format(Identifier(known.channel)))

    def lie_down(self, schemas: Iterable[str]) -> set[str]:
        """Be rung for these; those for which it is from now on. Look once after it."""
        mine = {name: self._schemas[name] for name in schemas if name in self._schemas}
        if self.deaf:
            return set()
        self._lock(mine.values(), "watch", "watching")
        self._rung -= mine.keys()  # what rang until now can be seen
        self._lock([each for each in mine.values() if each.watching], "bell", "hung")
        return {name for name, each in mine.items() if each.hung}

    def get_up(self, schemas: Iterable[str]) -> None:
        """Be rung for these no more, and leave it to others to be."""
        keys = []
        for name in schemas:
            each = self._schemas[name]
            keys += [each.bell] if each.hung else []
            keys += [each.watch] if each.watching else []
            each.hung = each.watching = False
            self._rung.discard(name)
        if keys:
            with translated():
                self._connection.execute(UNLOCK, (keys,))

    def another_watches(self, schema: str) -> bool:
        """Whether some other relay is rung for it."""
        return not self._schemas[schema].watching

    def wait(self, seconds: float, also: int) -> set[str]:
        """Wait at most so long, or until `also`, a file descriptor, is readable; who was rung."""
        with translated():
            self._hear_all()
            if not self._rung:
                waiting = select.poll()
                waiting.register(self._connection.pgconn.socket, select.POLLIN)
                waiting.register(also, select.POLLIN)
                ready = dict(waiting.poll(max(0.0, seconds) * 1000))
                if self._connection.pgconn.socket in ready:
                    self._connection.pgconn.consume_input()
                    self._hear_all()
        rung, self._rung = self._rung, set()
        return rung

    def look(self, schemas: Collection[str], broken: Broken) -> dict[str, Glance]:
        """What there is in these, asked together; who could not be is told to `broken`."""
        every, seen = list(self._schemas), dict[str, Glance]()
        for at in range(0, len(every), TOGETHER):
            some = every[at : at + TOGETHER]
            asked = [number for number, name in enumerate(some) if name in schemas]
            try:
                seen |= self._ask(some, asked)
            except (SchemaError, StatementFailed):
                seen |= self.look_singly([some[number] for number in asked], broken)
        return self._without_those_made_anew(seen, broken)

    def look_singly(self, schemas: Iterable[str], broken: Broken) -> dict[str, Glance]:
        """The same, asked one by one."""
        seen: dict[str, Glance] = {}
        for name in schemas:
            try:
                seen |= self._ask([name], [0])
            except (SchemaError, StatementFailed) as error:
                broken(name, str(error))
        return self._without_those_made_anew(seen, broken)

    def close(self) -> None:
        """Close the session: its locks end with it."""
        self._connection.close()

    def _ask(self, schemas: Sequence[str], asked: Sequence[int]) -> dict[str, Glance]:
        seen = {}
        with translated():
            query = Query(
                self._glance(tuple(schemas)), {"asked": f"{{{','.join(map(str, asked))}}}"}
            )
            rows = self._pipeline.run(query)
        for number, work, due, waits, table in rows:
            seen[schemas[number]] = Glance(work, due, waits)
            known = self._schemas[schemas[number]]
            known.anew = known.table not in (0, table)
            known.table = table
        return seen

    def _glance(self, schemas: tuple[str, ...]) -> Statement:
        """The statement that asks about these, prepared: it is the same look after look."""
        if (known := self._glances.get(schemas)) is not None:
            return known
        if len(self._glances) >= MAX_GLANCES:
            oldest = self._glances.pop(next(iter(self._glances)))
            self._connection.execute(SQL("DEALLOCATE {}").format(Identifier(oldest.name)))
        self._prepared += 1
        text = " UNION ALL ".join(
            GLANCE.format(number=number, outbox=f'"{name}"') for number, name in enumerate(schemas)
        )
        statement = Statement(f"glance_{self._prepared}", text)
        self._pipeline.prepare(statement)
        self._glances[schemas] = statement
        return statement

    def _without_those_made_anew(
        self, seen: dict[str, Glance], broken: Broken
    ) -> dict[str, Glance]:
        """A schema that was dropped and made again has other locks: it is to be added anew."""
        for name in [name for name in seen if self._schemas[name].anew]:
            broken(name, "its tables were made anew")
            del seen[name]
        return seen

    def _lock(self, schemas: Iterable[_Schema], key: str, held: str) -> None:
        wanted = {getattr(each, key): each for each in schemas if not getattr(each, held)}
        if wanted:
            with translated():
                for found, locked in self._connection.execute(TRY_LOCKS, ([*wanted],)):
                    setattr(wanted[found], held, locked)

    def _hear(self, channel: str) -> None:
        if (schema := self._by_channel.get(channel)) is not None:
            self._rung.add(schema)

    def _hear_all(self) -> None:
        while notified := self._connection.pgconn.notifies():
            self._hear(notified.relname.decode())
