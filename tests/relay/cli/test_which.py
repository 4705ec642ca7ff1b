"""Which outbox a command is for, where a file names many."""

from pathlib import Path

import pytest

from outbox_migrations import upgrade
from tests.fixtures.rows import commit_rows
from tests.relay.conftest import Cli

NOWHERE = "postgresql://nobody:hunter2@127.0.0.1:1/nothing"


@pytest.fixture
def file(tmp_path: Path, database: str) -> str:
    """A file of two tenants in one database, with a message in the second."""
    for schema in ("tenant_1", "tenant_2"):
        upgrade(database, schema, "outbox")
    commit_rows(database, schema="tenant_2", task="shop.second")
    path = tmp_path / "outboxes"
    path.write_text(f"{database} tenant_* name=app\n")
    return str(path)


def test_one_is_named(command: Cli, file: str) -> None:
    """And no other is looked at."""
    first = command("pending", "--json", "--outbox", "app/tenant_1", OUTBOX_DATABASES_FILE=file)
    second = command("pending", "--json", "--outbox=app/tenant_2", OUTBOX_DATABASES_FILE=file)

    assert first.json() == []
    assert [each["task"] for each in second.json()] == ["shop.second"]


def test_without_a_name_the_way_is_told(command: Cli, file: str) -> None:
    """A command for one outbox takes none by itself."""
    answer = command("pending", OUTBOX_DATABASES_FILE=file)

    assert answer.code == 2
    assert "pending is for one outbox of OUTBOX_DATABASES_FILE: name it with --outbox" in answer.err


def test_a_name_that_is_none_tells_which_there_are(command: Cli, file: str) -> None:
    """As the file gives them, without a look at the database."""
    answer = command("pending", "--outbox", "app", OUTBOX_DATABASES_FILE=file)

    assert answer.code == 2
    assert "no outbox is called 'app'; there are: app/tenant_*" in answer.err


def test_a_name_without_a_file_is_a_mistake(command: Cli) -> None:
    """Whoever gives one believes that there are many."""
    answer = command("pending", "--outbox", "app", OUTBOX_DATABASE_URL=NOWHERE)

    assert answer.code == 2
    assert "OUTBOX_DATABASES_FILE is not set" in answer.err


@pytest.mark.parametrize(
    "other",
    [
        {"OUTBOX_DATABASE_URL": NOWHERE},
        {"OUTBOX_DATABASE_URL_FILE": "/nowhere"},
        {"OUTBOX_SCHEMA": "outbox"},
    ],
    ids=str,
)
def test_one_and_many_together_are_a_mistake(
    command: Cli, file: str, other: dict[str, str]
) -> None:
    """Which of the two was meant cannot be known."""
    answer = command("pending", OUTBOX_DATABASES_FILE=file, **other)

    assert answer.code == 2
    assert f"OUTBOX_DATABASES_FILE and {next(iter(other))} are both set" in answer.err
    assert "hunter2" not in answer.err


def test_a_flag_wins(command: Cli, file: str, database: str) -> None:
    """As flags do: for one outbox against the file, and the other way round."""
    one = command("pending", "--json", "--database-url", database, OUTBOX_DATABASES_FILE=file)
    many = command(
        "pending",
        "--json",
        "--outbox=app/tenant_2",
        "--databases-file",
        file,
        OUTBOX_DATABASE_URL=NOWHERE,
        OUTBOX_SCHEMA="outbox",
    )

    assert one.json() == []
    assert len(many.json()) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--drain"], {}, "--drain is for one outbox"),
        ([], {"OUTBOX_TRACING": "on"}, "OUTBOX_TRACING is for one outbox"),
    ],
    ids=["drain", "tracing"],
)
def test_what_run_does_for_one_alone_is_told(
    command: Cli, file: str, arguments: list[str], environment: dict[str, str], told: str
) -> None:
    """At the start, and not by what is missing later."""
    environment |= {"OUTBOX_DATABASES_FILE": file, "OUTBOX_BROKER_URL": "amqp://127.0.0.1:1"}

    answer = command("run", *arguments, **environment)

    assert answer.code == 2
    assert told in answer.err
    assert "--outbox" in answer.err


def test_a_broken_file_is_told_by_its_line(command: Cli, tmp_path: Path) -> None:
    """In one sentence, with the exit code of wrong settings."""
    path = tmp_path / "outboxes"
    path.write_text("# tenants\npostgresql://db/app windows=7\n")

    answer = command("pending", "--outbox", "app", OUTBOX_DATABASES_FILE=str(path))

    assert answer.code == 2
    assert answer.err.startswith(f"outbox-relay: OUTBOX_DATABASES_FILE={path}: line 2: windows is")
