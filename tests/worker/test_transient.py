"""Only what another transaction or a lost connection did is tried again."""

import psycopg
import pytest
from celery.exceptions import Reject, Retry
from kombu.exceptions import OperationalError as BrokerError

from celery_inbox.transient import Verdict, judge, pause


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.SerializationFailure(),
        psycopg.errors.DeadlockDetected(),
        psycopg.errors.AdminShutdown(),
        psycopg.errors.CannotConnectNow(),
        psycopg.errors.ConnectionFailure(),
        psycopg.OperationalError("the connection is closed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_race_or_connection_is_worth_another_attempt(error: BaseException) -> None:
    """Nothing of the attempt is left, so the same work may simply be done again."""
    assert judge(error) in (Verdict.RACE, Verdict.OUTAGE)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UniqueViolation(),
        psycopg.errors.LockNotAvailable(),
        psycopg.errors.QueryCanceled(),
        psycopg.errors.InsufficientPrivilege(),
        psycopg.ProgrammingError("the connection cannot be used"),
        BrokerError("broker away"),
        ConnectionError("some other service"),
        ValueError("no such order"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_fail_again_is_not_repeated(error: BaseException) -> None:
    """An error of the statement, the application or another service is the task's own affair."""
    assert judge(error) is Verdict.MISTAKE


def test_the_drivers_error_is_found_where_libraries_keep_it() -> None:
    """SQLAlchemy has it in .orig, Django as the cause, psycopg2 calls the state pgcode."""
    in_orig, as_cause, pgcode = RuntimeError(), RuntimeError(), RuntimeError()
    vars(in_orig)["orig"] = psycopg.errors.SerializationFailure()
    as_cause.__cause__ = in_orig
    vars(pgcode)["pgcode"] = "40P01"

    assert {judge(error) for error in (in_orig, as_cause, pgcode)} == {Verdict.RACE}


@pytest.mark.parametrize("decision", [Retry(), Reject()], ids=["retry", "reject"])
def test_the_tasks_own_decision_is_never_repeated(decision: Exception) -> None:
    """retry() has sent a message already: a second attempt would send another."""
    decision.__cause__ = psycopg.errors.SerializationFailure()

    assert judge(decision) is Verdict.MISTAKE


def test_pauses_grow_and_stay_below_a_second() -> None:
    """Early attempts cost little, late ones leave the database alone."""
    assert pause(1) <= 0.02
    assert 0.5 <= pause(20) <= 1.0
