"""Every kind of error means what the table says, as a real server raises it."""

from collections.abc import Iterator
from typing import Final, LiteralString

import psycopg
import pytest

from outbox_relay.errors import SchemaError, StatementFailed, StoreLost
from outbox_relay.postgres.database import BoundedConnection, connect, translated
from outbox_relay.postgres.sqlstates import Fault, fault_of
from tests.fixtures.rows import commit_rows

SETUP: Final[LiteralString] = """
CREATE TABLE pg_temp.small (id int PRIMARY KEY, low smallint CHECK (low < 10), name varchar(3));
INSERT INTO pg_temp.small VALUES (1, 1, 'a')
"""
#: What raises it, by its SQLSTATE: the fault of what a row holds.
ROWS: Final[dict[str, LiteralString]] = {
    "23514": "INSERT INTO pg_temp.small VALUES (2, 10, 'b')",
    "23505": "INSERT INTO pg_temp.small VALUES (1, 1, 'b')",
    "23502": "INSERT INTO pg_temp.small VALUES (NULL, 1, 'b')",
    "22001": "INSERT INTO pg_temp.small VALUES (2, 1, 'long')",
    "22003": "INSERT INTO pg_temp.small VALUES (2, 40000, 'b')",
    "22008": "SELECT timestamptz '294276-01-01' + interval '1 year'",
    "22012": "SELECT 1 / (SELECT 0)",
    "22021": r"SELECT convert_from('\xff', 'UTF8')",
    "22P02": "SELECT 'a'::json",
    "21000": "SELECT (SELECT generate_series(1, 2))",
    "54000": "SELECT repeat('xx', 2000000000)",
    "P0001": "DO $$ BEGIN RAISE EXCEPTION 'no'; END $$",
}
#: What passes by itself.
PASSING: Final[dict[str, LiteralString]] = {
    "57014": "SET statement_timeout = '20ms'; SELECT pg_sleep(5)",
    "40001": "DO $$ BEGIN RAISE serialization_failure; END $$",
    "53200": "DO $$ BEGIN RAISE out_of_memory; END $$",
    "53100": "DO $$ BEGIN RAISE disk_full; END $$",
}
#: What a person has to look at.
OPERATORS: Final[dict[str, LiteralString]] = {
    "55000": "SELECT currval(pg_get_serial_sequence('outbox.message', 'id'))",
    "42P17": "CREATE TEMP TABLE t (x int) PARTITION BY LIST (x, x)",
    "XX000": "DO $$ BEGIN RAISE internal_error; END $$",
    "XX001": "DO $$ BEGIN RAISE data_corrupted; END $$",
}


@pytest.fixture
def connection(database: str) -> Iterator[BoundedConnection]:
    """A session of the relay's."""
    connection = connect(database, "test", 5)
    connection.execute(SETUP)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("sqlstate", "statement", "fault"),
    [
        pytest.param(sqlstate, statement, fault, id=sqlstate)
        for fault, raised in (
            (Fault.ROW, ROWS),
            (Fault.PASSING, PASSING),
            (Fault.OPERATOR, OPERATORS),
        )
        for sqlstate, statement in raised.items()
    ],
)
def test_an_error_of_a_statement_loses_no_connection(
    connection: BoundedConnection, sqlstate: str, statement: LiteralString, fault: Fault
) -> None:
    """It says whose matter it is, and the session goes on."""
    with pytest.raises(StatementFailed) as failed, translated():
        connection.execute(statement)

    assert isinstance(failed.value.__cause__, psycopg.Error)
    assert failed.value.__cause__.sqlstate == sqlstate
    assert fault_of(sqlstate) is fault
    assert failed.value.row_fault == (fault is Fault.ROW)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_lock_passes(database: str, connection: BoundedConnection) -> None:
    """Who holds it lets go one day."""
    commit_rows(database)
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM outbox.ready FOR UPDATE")
        with pytest.raises(StatementFailed) as failed, translated():
            connection.execute("SELECT FROM outbox.ready FOR UPDATE NOWAIT")

    assert not failed.value.row_fault
    assert fault_of("55P03") is Fault.PASSING


def test_what_ends_the_session_is_an_outage(connection: BoundedConnection) -> None:
    """The relay connects again."""
    with pytest.raises(StoreLost) as lost, translated():
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    assert not isinstance(lost.value, StatementFailed)


def test_a_database_that_is_read_only_is_an_outage(connection: BoundedConnection) -> None:
    """A primary that was demoted: another one takes over."""
    connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(StoreLost, match="read-only") as lost, translated():
        connection.execute("DELETE FROM outbox.ready")

    assert not isinstance(lost.value, StatementFailed)


@pytest.mark.parametrize(
    "statement",
    ["SELECT FROM outbox.nothing", "SELECT outbox.nothing()", "SELECT none FROM outbox.ready"],
)
def test_what_is_missing_is_told_with_its_remedy(
    connection: BoundedConnection, statement: LiteralString
) -> None:
    """The schema is of another version, or was never made."""
    with pytest.raises(SchemaError, match="outbox-migrate up"), translated():
        connection.execute(statement)
