"""A connection to Postgres on which every wait ends, and whose errors say what to do.

Raises StoreLost where the database is gone, silent or too slow (the connection is then to be closed
and opened anew), SchemaError where the tables are missing or not ours to use, and SettingsError
where the URL is none. No message repeats what a row contains.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outbox_relay.errors import SchemaError, SettingsError, StatementFailed, StoreLost
from outbox_relay.postgres.sqlstates import Fault, fault_of
from outbox_relay.settings import Settings
from outbox_relay.settings.setting import flag_of

#: How long a host may take to answer, unless the URL says how long (`connect_timeout`).
CONNECT_TIMEOUT_SECONDS: Final = 5
#: All hosts of a URL together, whatever it says: a loop that waits for longer looks stalled.
MAX_CONNECT_SECONDS: Final = 20
#: libpq takes less for this.
MIN_CONNECT_SECONDS: Final = 2
#: A session that another has left is asked whether it still works, and for no longer than this.
LEFT_SECONDS: Final = 1.0
#: How much longer than the server's own limit a statement is waited for, in seconds.
GRACE_SECONDS: Final = 2
#: A dead peer is noticed by the kernel too, where a firewall drops packets silently.
TCP_DEFAULTS: Final = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

#: What a session in READ COMMITTED hears 40001 of: a standby takes a query's rows away.
CONFLICT: Final = (
    " (a standby gives up a query that keeps it from following: ask the primary, ask again, or set"
    " hot_standby_feedback there)"
)

#: Where Postgres finds that row level security would hide rows, and what is to be done about it.
HIDDEN: Final = "check_enable_rls"
UNHIDE: Final = "DISABLE ROW LEVEL SECURITY there, or give this login BYPASSRLS"

#: Whatever the server would choose: a database made without an encoding is read as what it holds.
ENCODING: Final = {"client_encoding": "UTF8"}

#: Forbids every plan but index look-ups: on tables that are empty one minute and huge the next,
#: statistics are always old. What is committed here survives a crash of the database. Rows that
#: others have changed are passed over, not stumbled over: that takes READ COMMITTED. And rows that
#: row level security hides are an error: a message that cannot be seen is not one that is gone.
SESSION: Final = """
SELECT set_config('application_name', %(name)s, false),
       set_config('synchronous_commit', 'on', false),
       set_config('timezone', 'UTC', false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('row_security', 'off', false),
       set_config('jit', 'off', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('enable_hashjoin', 'off', false),
       set_config('enable_mergejoin', 'off', false),
       set_config('statement_timeout', %(timeout_ms)s, false),
       set_config('lock_timeout', %(timeout_ms)s, false),
       set_config('idle_in_transaction_session_timeout', '60s', false)
"""


#: What whoever takes a session over finds of the last one: nothing. Without parameters, these are
#: one round trip.
LEAVE: Final = """
SELECT pg_backend_pid(), pg_advisory_unlock_all(),
       set_config('application_name', 'outbox-relay left', false);
UNLISTEN *;
DEALLOCATE ALL;
"""


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """No statement waits longer than `deadline` seconds, even for a server that is frozen.

    statement_timeout cannot do that: a frozen server does not look at its clock.
    """

    deadline = 10.0
    #: What it was opened with.
    url = ""

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Run one of psycopg's generators until it is done or the time is over."""
        try:
            return super().wait(gen, timeout=self.deadline)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                # After a time-out the reply may still come: the connection cannot be used again.
                self.pgconn.finish()
            raise


def current_url(settings: Settings) -> str:
    """The database's URL, the secret read anew. Raises StoreLost while it is being replaced."""
    try:
        return settings.database_url.read()
    except SettingsError as error:  # it was readable at the start
        raise StoreLost(str(error)) from error


def connect(
    url: str,
    name: str,
    statement_timeout: float,
    *,
    prepare: bool = False,
    left: BoundedConnection | None = None,
) -> BoundedConnection:
    """Connect as `name`, with every statement a transaction of its own, of at most so many seconds.

    `prepare` keeps the server's plans of statements that are run twice, which not every pooler
    allows. What another has `left` is gone on with, if it is of the same database and still works.
    """
    if left is not None and _taken_over(left, url, name, statement_timeout):
        return left
    conninfo = _conninfo(url)
    with translated():
        connection = BoundedConnection.connect(
            conninfo, autocommit=True, prepare_threshold=1 if prepare else None
        )
        try:
            connection.url = url
            connection.deadline = statement_timeout + GRACE_SECONDS
            _set_up(connection, name, statement_timeout)
        except BaseException:
            connection.close()
            raise
    return connection


def _conninfo(url: str) -> str:
    """The URL as libpq is given it: with what it leaves open, and a time for each host."""
    try:
        given = {**TCP_DEFAULTS, **conninfo_to_dict(url), **ENCODING}
    except (psycopg.ProgrammingError, UnicodeDecodeError) as error:
        raise SettingsError("OUTBOX_DATABASE_URL is not a libpq URL or conninfo") from error
    return make_conninfo("", **{**given, "connect_timeout": _seconds_a_host(given)})


def _seconds_a_host(given: Mapping[str, Any]) -> int:
    """As long as the URL says, where that is not too long in all. 0 is: as long as may be."""
    hosts = 1 + str(given.get("hostaddr") or given.get("host") or "").count(",")
    longest = max(MIN_CONNECT_SECONDS, MAX_CONNECT_SECONDS // hosts)
    try:
        asked = int(given.get("connect_timeout", CONNECT_TIMEOUT_SECONDS))
    except ValueError as error:
        raise SettingsError(
            "connect_timeout in the database's URL is not a whole number of seconds"
        ) from error
    return min(asked, longest) if asked > 0 else longest


def leave(connection: BoundedConnection) -> bool:
    """Give up all that the session holds; whether another may go on with it, else it is closed.

    Behind a pooler, nobody knows whose session it would be. Raises StoreLost.
    """
    with translated():
        told = connection.execute(LEAVE, prepare=False).fetchone()
    if told is not None and told[0] == connection.pgconn.backend_pid:
        return True
    connection.close()
    return False


def _taken_over(left: BoundedConnection, url: str, name: str, statement_timeout: float) -> bool:
    """Whether it can be gone on with; else it is closed."""
    if left.url == url:
        try:
            left.deadline = LEFT_SECONDS
            _set_up(left, name, statement_timeout)
        except psycopg.Error:  # a new one tells what is wrong, if anything still is
            pass
        else:
            left.deadline = statement_timeout + GRACE_SECONDS
            return True
    left.close()
    return False


def _set_up(connection: BoundedConnection, name: str, statement_timeout: float) -> None:
    parameters = {"name": name, "timeout_ms": str(int(statement_timeout * 1000))}
    connection.execute(SESSION, parameters, prepare=False)


@contextmanager
def translated(role: str = "outbox_relay") -> Iterator[None]:
    """Turn the driver's errors into ours, in one sentence that says what to do.

    `role` is the one that has the rights for what is done.
    """
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        flag = flag_of("OUTBOX_STATEMENT_TIMEOUT")
        raise StatementFailed(f"{first_line(error)}: allow it more time with {flag}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        hidden = error.diag.source_function == HIDDEN
        todo = UNHIDE if hidden else f"run outbox-migrate grant and GRANT {role} to this login"
        raise SchemaError(f"{first_line(error)}: {todo}") from error
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.InvalidSchemaName,
    ) as error:
        raise SchemaError(
            f"the outbox is not there ({first_line(error)}): run outbox-migrate up"
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise StoreLost("the database is read-only (a standby, or told so)") from error
    except psycopg.Error as error:
        # What the server ends the session with says FATAL.
        if error.sqlstate is None or error.diag.severity_nonlocalized != "ERROR":
            raise StoreLost(f"the database does not answer: {first_line(error)}") from error
        fault = fault_of(error.sqlstate)
        reason = f"{error.sqlstate}: {first_line(error)}"
        if isinstance(error, psycopg.errors.SerializationFailure):
            reason += CONFLICT
        raise StatementFailed(reason, row_fault=fault is Fault.ROW) from error


def first_line(error: Exception) -> str:
    """The driver's summary; what follows it may quote a row."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
