"""The outboxes of many schemas are migrated together, and what one meets stops no other."""

import os
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from outbox_migrations import DatabaseUnreachable, InvalidSetting, fleet
from outbox_migrations.cli import main

Printed = pytest.CaptureFixture[str]

TENANTS = [f"tenant_{n}" for n in range(6)]


@pytest.fixture
def tenants(empty_database: str) -> str:
    """A database with a schema for each tenant, and one that is none."""
    with psycopg.connect(empty_database) as connection:
        for name in (*TENANTS, "shop"):
            connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
    return empty_database


def migrated(database: str) -> list[str]:
    """The schemas with an outbox in it."""
    with psycopg.connect(database) as connection:
        rows: Sequence[tuple[str]] = connection.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'message' ORDER BY 1"
        ).fetchall()
    return [name for (name,) in rows]


def test_every_schema_that_is_so_named_is_migrated(tenants: str, capsys: Printed) -> None:
    """And the inbox, once; doing it again changes nothing."""
    options = ["--database-url", tenants, "--schemas", "tenant_*", "--jobs", "2"]
    assert main(["status", *options]) == 1
    assert "tenant_5: not migrated" in capsys.readouterr().out

    assert main(["up", *options]) == 0

    assert migrated(tenants) == TENANTS
    assert main(["grant", *options]) == 0
    assert main(["up", *options]) == 0
    capsys.readouterr()
    assert main(["status", *options]) == 0
    said = capsys.readouterr().out
    assert said.count("outbox_0001") == len(TENANTS)
    assert said.count("inbox_0001") == 1


def test_what_one_meets_stops_no_other(tenants: str, capsys: Printed) -> None:
    """It is named, with the reason; run again once that is gone, the rest is done."""
    with psycopg.connect(tenants) as connection:
        connection.execute("CREATE TABLE tenant_3.message (id int)")
    options = ["outbox", "--database-url", tenants, "--schemas", "tenant_*"]

    assert main(["up", *options]) == 1

    printed = capsys.readouterr()
    assert "tenant_3: the migration was rolled back" in printed.err
    assert "message" in printed.err
    assert printed.out.count("outbox_0001") == len(TENANTS) - 1
    with psycopg.connect(tenants) as connection:
        connection.execute("DROP TABLE tenant_3.message")
    assert main(["up", *options]) == 0
    assert migrated(tenants) == TENANTS


def test_a_database_that_does_not_answer_ends_it() -> None:
    """Of two hundred schemas not each is waited for."""
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"

    outcomes = list(fleet.upgrade_all(nowhere, [f"tenant_{n}" for n in range(40)], jobs=1))

    assert {type(each.error) for each in outcomes} == {DatabaseUnreachable}
    assert len(outcomes) == 40
    assert sum(str(each.error) == fleet.NOT_BEGUN for each in outcomes) > 30


def killed(_url: str, schema: str, _component: str) -> None:
    """As by a system that is short of memory."""
    os._exit(9)


def test_a_process_that_was_killed_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence for each schema that was not begun, and no traceback."""
    monkeypatch.setattr(fleet, "upgrade", killed)

    outcomes = list(fleet.upgrade_all("", TENANTS, jobs=2))

    assert [str(each.error) for each in outcomes] == [fleet.KILLED] * len(TENANTS)


def noted(folder: str, schema: str, _component: str) -> None:
    """A file for each that was begun."""
    (Path(folder) / schema).touch()


def test_who_interrupts_it_wants_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is being migrated ends; no other schema is begun."""
    monkeypatch.setattr(fleet, "upgrade", noted)
    names = [f"tenant_{n}" for n in range(5_000)]
    outcomes = fleet.upgrade_all(str(tmp_path), names, jobs=1)
    assert next(outcomes).error is None

    outcomes.close()

    assert len(list(tmp_path.iterdir())) < len(names)


def test_one_that_cannot_be_read_hides_no_other(tenants: str, capsys: Printed) -> None:
    """A table of that name that is none of ours: the schema is named, and the rest is told."""
    with psycopg.connect(tenants) as connection:
        connection.execute("CREATE TABLE tenant_3.schema_version (id int)")

    assert main(["status", "outbox", "--database-url", tenants, "--schemas", "tenant_*"]) == 1

    printed = capsys.readouterr()
    assert "outbox-migrate: tenant_3: " in printed.err
    assert printed.out.count("not migrated") == len(TENANTS) - 1


def test_nothing_so_named_is_an_error(tenants: str) -> None:
    """A pattern with a slip in it would otherwise migrate nothing, and say so to nobody."""
    with pytest.raises(InvalidSetting, match="matches none of the 8 schemas"):
        fleet.matching(tenants, "tennant_*")


@pytest.mark.parametrize("command", ["down", "sql", "rebuild"])
def test_what_deletes_or_prints_is_for_one(command: str, capsys: Printed) -> None:
    """Nobody drops two hundred outboxes by a pattern."""
    assert main([command, "--schemas", "tenant_*", "--yes", "--database-url", "host=nowhere"]) == 2
    assert "one --schema" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["0", "65", "many"])
def test_jobs_are_a_number(jobs: str, capsys: Printed) -> None:
    """Which is said."""
    with pytest.raises(SystemExit):
        main(["up", "--schemas", "x", "--jobs", jobs])
    assert "from 1 to 64" in capsys.readouterr().err
