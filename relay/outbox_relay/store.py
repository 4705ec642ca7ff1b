"""The outbox as the relay sees it: claim, settle, park, release. Each call is one transaction.

Every call raises StoreLost where the database is gone or silent (the connection is then closed and
must be opened anew) and SchemaError where the tables are not what this relay was written for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any, Final

import psycopg
from psycopg import generators
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from outbox_relay import statements
from outbox_relay.errors import SchemaError, SettingsError, StoreLost
from outbox_relay.message import Claim, Leased, Message, Parking

#: The schema versions this relay can work with.
SCHEMA_VERSIONS: Final = (1,)
CONNECT_TIMEOUT_SECONDS: Final = 5
#: The prepared statement's name, and the type of its argument.
PROBE: Final = b"outbox_probe"
INT8: Final = 20
#: Bodies fetched at a time, in bytes; a single larger one is fetched alone.
FETCH_BYTES: Final = 16 << 20
#: A dead peer is noticed by the kernel too, where a firewall drops packets silently.
TCP_DEFAULTS: Final = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


@dataclass(frozen=True, slots=True)
class Stats:
    """The row of `outbox.stats`; the age in seconds."""

    pending: int
    scheduled: int
    dead: int
    oldest_pending_age: float

    def as_dict(self) -> dict[str, float]:
        """For printing, as text or JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Whether vacuum keeps up with the work tables; NaN seconds where this login cannot see it."""

    ready_bytes: int
    parked_bytes: int
    ready_dead_tuples: int
    parked_dead_tuples: int
    horizon_age: float


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no statement waits longer than `deadline` seconds for the server.

    statement_timeout cannot do that: a frozen server does not look at its clock.
    """

    deadline = 10.0

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        try:
            return super().wait(gen, timeout=self.deadline)
        except psycopg.OperationalError:
            # After a time-out the reply may still come: the connection cannot be used again.
            self.pgconn.finish()
            raise


class Store:
    """A connection to the outbox. Open one with `Store.connect`."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], schema: str) -> None:
        self._connection = connection
        self._cursor = connection.cursor(binary=True)
        self._probe_prepared = False
        self._sql = {
            name: text.format(outbox=f'"{schema}"')
            for name, text in vars(statements).items()
            if name.isupper()
        }

    @classmethod
    def connect(cls, url: str, schema: str, statement_timeout: float) -> "Store":
        """Connect, set the session up and check the schema's version."""
        try:
            conninfo = make_conninfo("", **{**TCP_DEFAULTS, **conninfo_to_dict(url)})
        except psycopg.ProgrammingError as error:
            raise SettingsError("OUTBOX_DATABASE_URL is not a libpq URL or conninfo") from error
        with _translated():
            connection = _Connection.connect(
                conninfo,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                prepare_threshold=0,
            )
            connection.deadline = statement_timeout + 2
        store = cls(connection, schema)
        try:
            store._run("SESSION", {"timeout_ms": str(int(statement_timeout * 1000))})
            store._check_version(schema)
        except BaseException:
            connection.close()
            raise
        return store

    def _check_version(self, schema: str) -> None:
        found = self._run("VERSION")[0][0]
        if found not in SCHEMA_VERSIONS:
            raise SchemaError(
                f"schema {schema!r} has version {found}, this relay works with "
                f"{', '.join(map(str, SCHEMA_VERSIONS))}: upgrade "
                f"{'the relay' if found > max(SCHEMA_VERSIONS) else 'it with outbox-migrate up'}"
            )

    def close(self) -> None:
        """Close the connection; whatever is leased stays leased until its time is over."""
        self._connection.close()

    def turn(
        self, done: Sequence[int], floor: int, limit: int, lease: int, term: float
    ) -> list[Leased]:
        """Settle the confirmed ids and lease up to `limit` rows above `floor` for `term` seconds.

        The rows leased come in no particular order.
        """
        rows = self._run(
            "TURN",
            {
                "done": _bigints(done),
                "floor": floor,
                "limit": limit,
                "lease": lease,
                "term": term,
            },
        )
        return [Leased._make(row) for row in rows]

    def waiting(self, floor: int) -> bool:
        """Whether a turn could lease any row above `floor`.

        Through libpq itself, as an idle relay does little else.
        """
        pgconn = self._connection.pgconn
        with _translated():
            if not self._probe_prepared:
                text = self._sql["PROBE"].replace("%(floor)s", "$1")
                pgconn.send_prepare(PROBE, text.encode(), [INT8])
                self._results()
                self._probe_prepared = True
            pgconn.send_query_prepared(PROBE, [str(floor).encode()])
            return self._results()[0].ntuples > 0

    def _results(self) -> list[PGresult]:
        """What the statement just sent has yielded; within the deadline of every other."""
        execution = generators.execute(self._connection.pgconn)
        results: list[PGresult] = self._connection.wait(execution)
        for result in results:
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
                raise psycopg.errors.error_from_result(result)
        return results

    def fetch(self, leased: Sequence[Leased], lease: int) -> Claim:
        """The messages of leased rows, oldest first, as far as FETCH_BYTES reach."""
        slots: dict[int, list[int]] = {}
        for row in leased:
            slots.setdefault(row.slot, []).append(row.id)
        rows: list[tuple[Any, ...]] = []
        for slot, ids in slots.items():
            rows += self._run(
                "FETCH",
                {
                    "slot": slot,
                    "ids": _bigints(sorted(ids)),
                    "lease": lease,
                    "bytes": FETCH_BYTES,
                    "clock": monotonic(),
                },
            )
        fetched = [Message._make(row) for row in rows]
        marked = {row.id: row for row in leased if row.attempts or row.suspicion}
        messages = [_mark(m, marked) if marked else m for m in fetched if m.body is not None]
        astray = []
        if len(fetched) < len(leased):
            found = {m.id for m in fetched}
            astray = [(row.id, lease) for row in leased if row.id not in found]
        return Claim(messages, [(m.id, m.lease) for m in fetched if m.body is None], astray)

    def drop_orphans(self, held: Sequence[tuple[int, int]]) -> int:
        """Forget claimed work whose message is gone; returns how much. The rest is given back.

        The rest has been moved to another slot between claim and fetch.
        """
        self._run("DROP_ORPHANS", _held(held))
        dropped = self._cursor.rowcount
        self.release(held)
        return dropped

    def park(self, parkings: Sequence[Parking]) -> None:
        """Take refused messages out of the hot table, unless another relay has claimed them."""
        self._run(
            "PARK",
            {
                "ids": [p.message.id for p in parkings],
                "leases": [p.message.lease for p in parkings],
                "states": [p.state for p in parkings],
                "attempts": [p.attempts for p in parkings],
                "suspicions": [p.suspicion for p in parkings],
                "delays": [p.delay for p in parkings],
                "errors": [_storable(p.error) for p in parkings],
            },
        )

    def promote(self) -> int:
        """Make work of what has become due; returns how many, at most 1,000."""
        self._run("PROMOTE")
        return self._cursor.rowcount

    def release(self, held: Iterable[tuple[int, int]], *, suspicious: bool = False) -> None:
        """Give back claims, as (id, lease)."""
        self._run("RELEASE", {**_held(held), "suspicion": int(suspicious)})

    def renew(self, held: Iterable[tuple[int, int]], term: float) -> None:
        """Keep claims, as (id, lease), for another `term` seconds."""
        self._run("RENEW", {**_held(held), "term": term})

    def forget(self, messages: Sequence[Message]) -> None:
        """Delete settled messages at once."""
        ids, slots = [m.id for m in messages], [m.slot for m in messages]
        self._run("FORGET", {"ids": _bigints(ids), "slots": _bigints(slots)})

    def purge(self, older_than: float) -> int:
        """Forget sent messages older than that many seconds; returns about how many."""
        return int(self._run("PURGE", {"older_than": older_than})[0][0])

    def anything_left(self) -> bool:
        """Whether anything due, or refused and waiting for another attempt, is still there."""
        return bool(self._run("LEFT")[0][0])

    def stats(self) -> Stats:
        """Counts and lag; cheap on any backlog."""
        return Stats(*self._run("STATS")[0])

    def upkeep(self) -> Upkeep:
        """Size, dead rows and horizon; cheap as well."""
        return Upkeep(*self._run("UPKEEP")[0])

    def _run(self, name: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        with _translated():
            self._cursor.execute(self._sql[name], parameters)
            result = self._cursor.pgresult
            return self._cursor.fetchall() if result and result.nfields else []


def _mark(message: Message, marked: Mapping[int, Leased]) -> Message:
    """Copy what is known of earlier attempts onto the message; almost none has any."""
    row = marked.get(message.id)
    return message._replace(attempts=row.attempts, suspicion=row.suspicion) if row else message


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the driver's errors into ours, without repeating what rows contain."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise StoreLost(_first_line(error)) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise SchemaError(_missing(error)) from error
    except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName) as error:
        raise SchemaError(_missing(error)) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"{_first_line(error)}: run outbox-migrate grant and GRANT outbox_relay to this login"
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise StoreLost("the database is read-only (a standby, or told so)") from error
    except psycopg.Error as error:
        raise StoreLost(
            f"{error.sqlstate or type(error).__name__}: {_first_line(error)}"
        ) from error


def _missing(error: psycopg.Error) -> str:
    return f"the outbox is not there ({_first_line(error)}): run outbox-migrate up"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _storable(text: str) -> str:
    """A reason that a text column can hold, whatever the row or the broker put into it."""
    return text.replace("\0", "")[:1000].encode(errors="replace").decode()


def _bigints(numbers: Iterable[int]) -> str:
    """An array literal: the driver's own dumping of long lists costs several times as much."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _held(held: Iterable[tuple[int, int]]) -> dict[str, str]:
    pairs = list(held)
    return {"ids": _bigints(p[0] for p in pairs), "leases": _bigints({p[1] for p in pairs})}
