"""From what a database says to what a person is told. Pure; repeats no value of a message."""

from typing import Final

import psycopg
from psycopg import errors

from outbox_console.errors import Problem

#: What is said where no answer came in time: of what was looked at, and of what was to be done.
FROZEN: Final = (
    "The database does not answer",
    "It was reached and stays silent: look whether it is frozen or out of disk. "
    "This page tries again by itself.",
)
UNKNOWN_OUTCOME: Final = (
    "The database has not answered in time",
    "It is not known whether anything was done: look at the page Actions before you try again.",
)

#: The schema is not there, or lacks what this release of the console asks for.
_SCHEMA: Final = (
    errors.InvalidSchemaName,
    errors.UndefinedTable,
    errors.UndefinedFunction,
    errors.UndefinedColumn,
)
_CONNECTING: Final = (
    (("refused", "no such file"), "Nothing listens there: start the server, or correct"),
    (("not known", "resolve", "no address"), "Its host name does not resolve: fix DNS, or correct"),
    (("password", "authentication"), "User or password are wrong: correct"),
    (("does not exist",), "The database or login does not exist: create it, or correct"),
    (("too many", "connection slots"), "All connections are taken: raise max_connections, or see"),
    (("starting up", "shutting down", "recovery"), "It is starting, stopping or recovering; see"),
    (("timeout", "timed out", "unreachable"), "It does not answer: look at firewalls, and see"),
)


def unreachable(error: psycopg.OperationalError) -> Problem:
    """A connection that could not be made, or was lost."""
    words = str(error).lower()
    advice = next(
        (advice for needles, advice in _CONNECTING if any(n in words for n in needles)),
        "Look at the server's log, and at",
    )
    remedy = f"{advice} OUTBOX_DATABASE_URL. This page tries again by itself."
    return Problem(503, "The database cannot be reached", remedy)


def refused(error: psycopg.Error, role: str) -> Problem:
    """A statement that failed."""
    if isinstance(error, errors.QueryCanceled):
        return Problem(
            422,
            "Too much to look through",
            "Narrow your search: a task, a queue, a shorter time, or an id.",
        )
    if isinstance(error, _SCHEMA):
        return Problem(
            503,
            "The outbox is not there, or too old for this console",
            "Run `outbox-migrate up` and `outbox-migrate grant` on this database, and see "
            "OUTBOX_SCHEMA. This page tries again by itself.",
        )
    if isinstance(error, (errors.InvalidParameterValue, errors.UndefinedObject)):
        return Problem(
            503,
            f"The database has no role {role}",
            f"Run `outbox-migrate grant`, and grant {role} to the console's login.",
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return Problem(
            403,
            "The database refuses this",
            f"The console's login must be a member of {role}: GRANT {role} TO the login. "
            "What that role itself may not, this person may not.",
        )
    if isinstance(error, errors.LockNotAvailable):
        return Problem(
            409,
            "Somebody else holds these messages",
            "An open transaction has locked them: try again when it has ended. Nothing was done.",
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return Problem(
            503,
            "This server takes no changes",
            "It is a standby: point OUTBOX_DATABASE_URL at the primary. Nothing was done.",
        )
    if isinstance(error, psycopg.OperationalError):
        return unreachable(error)
    code = error.sqlstate or type(error).__name__
    return Problem(500, "The database has refused a statement", f"Its code is {code}.")
