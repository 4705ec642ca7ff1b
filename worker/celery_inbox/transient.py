"""Decides, without doing anything, whether a failed attempt may simply be made again.

An attempt is repeated only for what another transaction or a lost connection did to it. Its
transaction is gone by then, or its COMMIT is in doubt: the inbox row tells which.
"""

import random
from collections.abc import Iterator

from celery.exceptions import TaskPredicate

#: Lost a race against another transaction: serialization failure, deadlock.
_RACE_LOST = {"40001", "40P01"}
#: The server ended the session, or is starting or stopping.
_SESSION_ENDED = {"57P01", "57P02", "57P03"}

#: Races a task may lose; outages end when PATIENCE does.
ATTEMPTS = 10
#: No further attempt is begun after this many seconds: a worker slot is worth more than that.
PATIENCE = 30.0

LOCK_NOT_AVAILABLE = "55P03"
UNDEFINED_TABLE = "42P01"
UNDEFINED_FUNCTION = "42883"
UNDEFINED_SCHEMA = "3F000"


def worth_repeating(error: BaseException) -> bool:
    """True for a lost race or a lost connection, however the driver or ORM wrapped it."""
    if isinstance(error, TaskPredicate):  # Retry, Reject, Ignore: the task has decided already
        return False
    lost_race = any(state in _RACE_LOST for _, state in _database_errors(error))
    return lost_race or is_outage(error)


def is_outage(error: BaseException) -> bool:
    """True when the database, and not this task, was at fault: attempts do not count then."""
    return any(
        state in _SESSION_ENDED
        or state.startswith("08")
        or (state == "" and _is_operational(cause))
        for cause, state in _database_errors(error)
    )


def pause(attempt: int) -> float:
    """Seconds to wait after the given attempt (1, 2, ...): doubling, jittered, at most one."""
    return random.uniform(0.5, 1.0) * min(1.0, 0.01 * 2.0**attempt)


def sqlstate(error: BaseException) -> str:
    """SQLSTATE of a database error, "" when there is none."""
    return next((state for _, state in _database_errors(error)), "")


def _database_errors(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """The driver's errors inside `error`: SQLAlchemy keeps them in .orig, Django in __cause__."""
    seen: BaseException | None = error
    while seen is not None:
        # psycopg calls it sqlstate, psycopg2 pgcode; None when the server never answered.
        for name in ("sqlstate", "pgcode"):
            if hasattr(seen, name):
                yield seen, getattr(seen, name) or ""
                break
        orig = getattr(seen, "orig", None)
        seen = orig if isinstance(orig, BaseException) else seen.__cause__


def _is_operational(error: BaseException) -> bool:
    """True when the driver says that the connection, and not the statement, was at fault."""
    return any(
        kind.__name__ in {"OperationalError", "InterfaceError"} for kind in type(error).__mro__
    )
