"""`outbox-migrate` for deployments: exit codes, one sentence per error, no accident by `down`."""

from pathlib import Path

import psycopg
import pytest

from outbox_migrations.cli import main

Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OUTBOX_DATABASE_URL", "OUTBOX_DATABASE_URL_FILE", "OUTBOX_SCHEMA"):
        monkeypatch.delenv(name, raising=False)


def test_a_deployment(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """Status 1 before, up, status 0 after, grant, down: every step says where things stand."""
    monkeypatch.setenv("OUTBOX_DATABASE_URL", empty_database)

    assert main(["status"]) == 1
    assert "not migrated" in capsys.readouterr().out
    assert main(["up"]) == 0
    assert main(["status"]) == 0
    assert "not migrated" not in capsys.readouterr().out
    assert main(["grant"]) == 0
    assert main(["grant"]) == 0
    assert main(["down", "--yes"]) == 0
    assert main(["status"]) == 1


def test_down_needs_a_yes(database: str, capsys: Printed) -> None:
    """Without a terminal to ask at, nothing is deleted."""
    assert main(["down", "--database-url", database]) == 2

    assert "--yes" in capsys.readouterr().err
    assert main(["status", "--database-url", database]) == 0


def test_the_url_may_be_in_a_file(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """A file that is not there is named."""
    file = tmp_path / "url"
    monkeypatch.setenv("OUTBOX_DATABASE_URL_FILE", str(file))
    assert main(["status"]) == 2
    assert "OUTBOX_DATABASE_URL_FILE" in capsys.readouterr().err

    file.write_text(f"{database}\n")

    assert main(["status"]) == 0


def test_the_file_may_be_a_flag(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """A flag wins over the environment; two of one kind are refused, as the relay refuses them."""
    file = tmp_path / "url"
    file.write_text(f"{database}\n")
    monkeypatch.setenv("OUTBOX_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")

    assert main(["status", "--database-url-file", str(file)]) == 0

    monkeypatch.setenv("OUTBOX_DATABASE_URL_FILE", str(file))
    assert main(["status"]) == 2
    assert main(["status", "--database-url-file", str(file), "--database-url", database]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "OUTBOX_DATABASE_URL and OUTBOX_DATABASE_URL_FILE are both set" in first
    assert "--database-url and --database-url-file are both set" in second


def test_an_empty_variable_is_none(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files and shells leave it where nothing is configured."""
    monkeypatch.setenv("OUTBOX_SCHEMA", "")
    monkeypatch.setenv("OUTBOX_DATABASE_URL_FILE", "")
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)

    assert main(["status"]) == 0


def test_no_url_at_all_is_wrong_usage(capsys: Printed) -> None:
    """The message says what to set."""
    assert main(["up"]) == 2
    assert "OUTBOX_DATABASE_URL" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["db:5432/shop", "mysql://hunter2@db", "host=x port=nonsense"])
def test_a_malformed_url_is_one_sentence(url: str, capsys: Printed) -> None:
    """Not a traceback, and not the password."""
    for command in ("up", "grant", "status"):
        assert main([command, "--database-url", url]) in (1, 2)

        error = capsys.readouterr().err
        assert error.startswith("outbox-migrate: ")
        assert error.count("\n") == 1
        assert "hunter2" not in error


@pytest.mark.parametrize("command", ["up", "down", "status", "grant"])
def test_a_database_that_is_away_is_one_sentence(command: str, capsys: Printed) -> None:
    """Exit code 1, and the password stays out of it."""
    url = "postgresql://postgres:hunter2@127.0.0.1:1/postgres"

    assert main([command, "--database-url", url, "--yes"]) == 1

    error = capsys.readouterr().err
    assert error.startswith("outbox-migrate: ")
    assert error.count("\n") == 1
    assert "hunter2" not in error


def test_granting_what_is_not_there_is_one_sentence(empty_database: str, capsys: Printed) -> None:
    """The schema has to be migrated first."""
    assert main(["grant", "--database-url", empty_database]) == 1

    error = capsys.readouterr().err
    assert error.startswith("outbox-migrate: ")
    assert error.count("\n") == 1


def test_a_wrong_schema_name_is_wrong_usage(database: str, capsys: Printed) -> None:
    """From the flag as from the variable."""
    assert main(["grant", "--database-url", database, "--schema", "No Such"]) == 2
    assert main(["sql", "--schema", "No Such"]) == 2
    assert "schema" in capsys.readouterr().err


def test_printed_sql_needs_no_database(empty_database: str, capsys: Printed) -> None:
    """What it prints can be piped into a client as it is."""
    assert main(["sql", "outbox", "--schema", "piped"]) == 0

    with psycopg.connect(empty_database) as connection:
        connection.execute(capsys.readouterr().out.encode())
        assert connection.execute("SELECT piped.version()").fetchone() == (1,)
