"""Decides, without doing anything, what a failed attempt was: one table of the database's errors.

An attempt is repeated only for what another transaction, a lost connection or a server did to it.
Its transaction is gone by then, or its COMMIT is in doubt: the inbox row tells which.
"""

import random
from collections.abc import Iterator
from enum import Enum

from celery.exceptions import TaskPredicate


class Verdict(Enum):
    """What is done about a failed attempt."""

    RACE = "lost a race: again, up to ATTEMPTS"
    OUTAGE = "the database is at fault: again while PATIENCE lasts, then back to the queue"
    CUT_OFF = "took longer than the server allows: again, up to ATTEMPTS and while PATIENCE lasts"
    MISTAKE = "the task's own error: it fails"


#: By SQLSTATE, or by its first two characters; what is not here is a mistake.
VERDICTS = {
    "40000": Verdict.RACE,  # transaction_rollback
    "40001": Verdict.RACE,  # serialization_failure
    "40003": Verdict.RACE,  # statement_completion_unknown
    "40P01": Verdict.RACE,  # deadlock_detected
    "25P03": Verdict.CUT_OFF,  # idle_in_transaction_session_timeout
    "25P04": Verdict.CUT_OFF,  # transaction_timeout
    "08": Verdict.OUTAGE,  # connection_exception, and what poolers say when they have no server
    "53000": Verdict.OUTAGE,  # insufficient_resources
    "53100": Verdict.OUTAGE,  # disk_full
    "53200": Verdict.OUTAGE,  # out_of_memory
    "53300": Verdict.OUTAGE,  # too_many_connections
    "57P01": Verdict.OUTAGE,  # admin_shutdown
    "57P02": Verdict.OUTAGE,  # crash_shutdown
    "57P03": Verdict.OUTAGE,  # cannot_connect_now
    "57P05": Verdict.OUTAGE,  # idle_session_timeout
    "58000": Verdict.OUTAGE,  # system_error
    "58030": Verdict.OUTAGE,  # io_error
}
#: Of the first statement alone, which the inbox sends: in the body they are the body's own doing.
VERDICTS_AT_CLAIM = {
    "25006": Verdict.OUTAGE,  # read_only_sql_transaction: a primary that was demoted
}

#: Races a task may lose; outages end when PATIENCE does.
ATTEMPTS = 10
#: No further attempt is begun after this many seconds: a worker slot is worth more than that.
PATIENCE = 30.0

#: At the claim: the first delivery is still running, and there is a limit to waiting for it.
WAIT_ENDED = {
    "55P03",  # lock_not_available
    "57014",  # query_canceled, by statement_timeout or a person
    "25P04",  # transaction_timeout
}
TRANSACTION_ENDED = "2DI01"  # the inbox' own, see its migration
UNDEFINED_TABLE = "42P01"
UNDEFINED_FUNCTION = "42883"
UNDEFINED_SCHEMA = "3F000"


def judge(error: BaseException, *, claiming: bool = False) -> Verdict:
    """What a failed attempt was, however the driver or ORM wrapped its error.

    claiming: the error is of the inbox' first statement.
    """
    if isinstance(error, TaskPredicate):  # Retry, Reject, Ignore: the task has decided already
        return Verdict.MISTAKE
    verdicts = [_verdict(cause, state, claiming) for cause, state in _database_errors(error)]
    return next((v for v in verdicts if v is not Verdict.MISTAKE), Verdict.MISTAKE)


def pause(attempt: int) -> float:
    """Seconds to wait after the given attempt (1, 2, ...): doubling, jittered, at most one."""
    return random.uniform(0.5, 1.0) * min(1.0, 0.01 * 2.0**attempt)


def sqlstate(error: BaseException) -> str:
    """SQLSTATE of a database error, "" when there is none."""
    return next((state for _, state in _database_errors(error) if state), "")


def described(error: BaseException) -> str:
    """The error's class and SQLSTATE: its text may repeat what the task was given."""
    state = sqlstate(error)
    return f"{type(error).__qualname__}, SQLSTATE {state}" if state else type(error).__qualname__


def _verdict(error: BaseException, state: str, claiming: bool) -> Verdict:
    if state == "":
        return Verdict.OUTAGE if _no_answer(error) else Verdict.MISTAKE
    if claiming and state in VERDICTS_AT_CLAIM:
        return VERDICTS_AT_CLAIM[state]
    return VERDICTS.get(state) or VERDICTS.get(state[:2]) or Verdict.MISTAKE


def _database_errors(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """The driver's errors inside `error`: SQLAlchemy keeps them in .orig, Django in __cause__."""
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ == "PipelineAborted":  # psycopg keeps what aborted it beside it
            seen = seen.__context__
            continue
        # psycopg calls it sqlstate, psycopg2 pgcode; None when the server never answered.
        for name in ("sqlstate", "pgcode"):
            if hasattr(seen, name):
                yield seen, getattr(seen, name) or ""
                break
        else:
            if _is_pool_timeout(seen):
                yield seen, ""
        orig = getattr(seen, "orig", None)
        seen = orig if isinstance(orig, BaseException) else seen.__cause__


def _no_answer(error: BaseException) -> bool:
    """True when the driver says that the connection, and not the statement, was at fault."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "PoolClosed" in names:  # nobody opened it, or somebody closed it: it stays so
        return False
    return bool(names & {"OperationalError", "InterfaceError"}) or _is_pool_timeout(error)


def _is_pool_timeout(error: BaseException) -> bool:
    """SQLAlchemy's error for a pool with no connection to lend; psycopg_pool's is the driver's."""
    kind = type(error)
    return kind.__name__ == "TimeoutError" and kind.__module__ == "sqlalchemy.exc"
