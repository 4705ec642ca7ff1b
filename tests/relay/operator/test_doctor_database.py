"""`doctor` on a real database: each seeded problem is named, with the way out."""

import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from outbox_migrations.grants import grant
from outbox_relay.configuration import from_environment
from outbox_relay.core.finding import Level
from outbox_relay.operator.doctor.activity import check_clock
from outbox_relay.operator.doctor.context import Context
from outbox_relay.operator.session import Session
from servers.ports import free_port
from tests.relay.conftest import Doctor, Outbox, finding


def test_a_database_that_is_down(doctor: Doctor) -> None:
    """The address, and what to look at; the broker is examined all the same."""
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/shop"

    answer = doctor(OUTBOX_DATABASE_URL=url)

    assert answer.code == 1
    assert "Connection refused" in finding(answer, "problem", "database")
    assert "start the server" in finding(answer, "problem", "database")
    assert finding(answer, "ok", "broker")


def test_a_wrong_password_of_the_database(doctor: Doctor, database: str) -> None:
    """The user is named, the password is not."""
    password = urlsplit(database).password
    answer = doctor(OUTBOX_DATABASE_URL=database.replace(f":{password}@", ":hunter2@"))

    assert answer.code == 1
    assert "password authentication failed" in finding(answer, "problem", "database")
    assert "OUTBOX_DATABASE_URL" in finding(answer, "problem", "database")
    assert "hunter2" not in answer.out


def test_a_missing_schema(doctor: Doctor, empty_database: str) -> None:
    """Named, with the command that creates it."""
    answer = doctor(OUTBOX_DATABASE_URL=empty_database)

    assert answer.code == 1
    assert "no schema 'outbox'" in finding(answer, "problem", "schema")
    assert "outbox-migrate up" in finding(answer, "problem", "schema")


def test_a_missing_table(doctor: Doctor, outbox: Outbox) -> None:
    """Each one is named."""
    outbox.connection.execute("DROP TABLE outbox.receipt CASCADE")

    answer = doctor()

    assert answer.code == 1
    assert "missing in schema 'outbox': receipt" in finding(answer, "problem", "schema")


@pytest.mark.parametrize(("version", "way_out"), [(2, "upgrade outbox-relay"), (0, "migrate up")])
def test_another_version(doctor: Doctor, outbox: Outbox, version: int, way_out: str) -> None:
    """Both versions, and which side to upgrade."""
    outbox.connection.execute(
        "CREATE OR REPLACE FUNCTION outbox.version() RETURNS integer "
        f"LANGUAGE sql AS 'SELECT {version}'"
    )

    answer = doctor()

    assert answer.code == 1
    assert f"has version {version}, this relay works with 1" in finding(answer, "problem", "schema")
    assert way_out in finding(answer, "problem", "schema")


@pytest.fixture
def login(outbox: Outbox, database: str) -> Iterator[tuple[str, str]]:
    """A new login without any right: its name, and the database's URL with it."""
    name = f"l{urlsplit(database).path[2:14]}"
    outbox.connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield name, f"{database}?user={name}&password=secret"
    outbox.connection.execute(f"DROP OWNED BY {name}")
    outbox.connection.execute(f"DROP ROLE {name}")


def test_missing_privileges(doctor: Doctor, outbox: Outbox, login: tuple[str, str]) -> None:
    """Each missing right is named, with the grant that gives them all."""
    name, url = login
    outbox.connection.execute(f"GRANT USAGE ON SCHEMA outbox TO {name}")
    outbox.connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA outbox TO {name}")

    answer = doctor(OUTBOX_DATABASE_URL=url)

    assert answer.code == 1
    text = finding(answer, "problem", "privileges")
    assert f"{name} lacks" in text
    assert "DELETE on ready" in text
    assert "EXECUTE on purge()" in text
    assert f'GRANT outbox_relay TO "{name}"' in text


def test_what_grant_gives_is_enough(
    doctor: Doctor, outbox: Outbox, login: tuple[str, str], database: str
) -> None:
    """The remedy that `doctor` names is one; other logins' transactions stay hidden, and that."""
    name, url = login
    grant(database)
    outbox.connection.execute(f"GRANT outbox_relay TO {name}")

    answer = doctor(OUTBOX_DATABASE_URL=url)

    assert "may do all" in finding(answer, "ok", "privileges")
    assert "GRANT pg_read_all_stats" in finding(answer, "warn", "long transactions")


def test_row_level_security(
    doctor: Doctor, outbox: Outbox, login: tuple[str, str], database: str
) -> None:
    """A table whose rows are hidden from the relay is named, with both ways out."""
    name, url = login
    grant(database)
    outbox.connection.execute(f"GRANT outbox_relay TO {name}")
    outbox.connection.execute("ALTER TABLE outbox.message ENABLE ROW LEVEL SECURITY")

    answer = doctor(OUTBOX_DATABASE_URL=url)

    assert answer.code == 1
    text = finding(answer, "problem", "privileges")
    assert f"row level security of outbox.message hides rows from {name}" in text
    assert f'ALTER ROLE "{name}" BYPASSRLS' in text


def test_a_read_only_database(doctor: Doctor, database: str) -> None:
    """A standby, or a switch."""
    answer = doctor(
        OUTBOX_DATABASE_URL=f"{database}?options={quote('-c default_transaction_read_only=on')}"
    )

    assert answer.code == 1
    assert "read-only" in finding(answer, "problem", "database writable")


def test_an_open_transaction_is_named(doctor: Doctor, outbox: Outbox, database: str) -> None:
    """Process, user, application and age, as soon as it holds the horizon."""
    with psycopg.connect(database, application_name="nightly-report") as report:
        report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        report.execute("SELECT count(*) FROM outbox.message")

        text = finding(doctor(), "ok", "long transactions")

        assert f"pid {report.info.backend_pid}" in text
        assert "user postgres" in text
        assert "application nightly-report" in text


def test_a_wrong_clock_is_named(database: str) -> None:
    """How far this machine is off, by the clock of a real database."""
    settings = from_environment({"OUTBOX_DATABASE_URL": database}, need_broker=False)
    with Session.open(settings) as session:
        (found,) = check_clock(Context(session, settings), clock=lambda: time.time() - 7200)

    assert found.level is Level.PROBLEM
    assert "behind the database's" in found.text
    assert "NTP" in found.remedy


def test_bloat_is_named(doctor: Doctor, outbox: Outbox) -> None:
    """A hot table much larger than its rows, and that nothing vacuums it."""
    run = outbox.connection.execute
    run("ALTER TABLE outbox.ready SET (autovacuum_enabled = false)")
    run("INSERT INTO outbox.ready (id, slot) SELECT g, 0 FROM generate_series(1, 600000) g")
    run("DELETE FROM outbox.ready")

    answer = doctor()

    assert answer.code == 1
    assert "outbox.ready is bloated" in finding(answer, "problem", "bloat")
    assert "VACUUM outbox.ready" in finding(answer, "problem", "bloat")
    assert "switched off for outbox.ready" in finding(answer, "warn", "autovacuum")
