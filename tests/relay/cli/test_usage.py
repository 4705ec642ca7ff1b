"""Wrong usage: exit 2, one sentence, and the name of the flag or variable to correct."""

from pathlib import Path

import pytest

from outbox_relay.broker.amqp.settings import MANAGEMENT_URL
from outbox_relay.cli.main import COMMANDS
from outbox_relay.configuration import TABLE
from tests.relay.conftest import Cli

WRONG = [
    (("retry",), "retry: give either ids, or --task NAME, or --all"),
    (("retry", "x", "--all"), "retry: give either ids, or --task NAME, or --all"),
    (("show", ""), "argument ID: '' cannot be an id"),
    (("show", "a\nb"), r"argument ID: 'a\nb' cannot be an id"),
    (("show", "x" * 256), "cannot be an id"),
    (("pending", "--limit", "0"), "argument --limit: '0': give a whole number"),
    (("replay", "--since", "yesterday"), "argument --since: 'yesterday' is neither a duration"),
    (("replay",), "replay needs --since, or --missing"),
    (("replay", "--since", "1h", "--until", "2h", "--yes"), "is not before --until"),
    (("purge", "--older-than", "7 days"), "argument --older-than: '7 days': give a duration"),
    (("status", "--schema", "Robert'); --"), "--schema="),
    (("status", "--statement-timeout", "soon"), "--statement-timeout='soon': give a duration"),
    (("nonsense",), "invalid choice: 'nonsense'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=lambda x: str(x)[:40])
def test_wrong_usage_names_the_flag(cli: Cli, arguments: tuple[str, ...], sentence: str) -> None:
    """Every mistake ends with 2 and is named."""
    answer = cli(*arguments)

    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err


def test_without_a_database_url_the_variable_is_named(command: Cli) -> None:
    """The first thing everybody forgets."""
    answer = command("status")

    assert answer.code == 2
    assert "OUTBOX_DATABASE_URL is not set" in answer.err


def test_an_unknown_variable_stops_every_command(cli: Cli) -> None:
    """A misspelt setting is an error, not a silence."""
    answer = cli("status", OUTBOX_SCHEMAS="outbox")

    assert answer.code == 2
    assert "OUTBOX_SCHEMAS is not a setting" in answer.err


def test_a_flag_wins_over_the_environment(command: Cli, database: str) -> None:
    """Also over the file that the environment names."""
    answer = command("status", "--database-url", database, OUTBOX_DATABASE_URL_FILE="/nowhere")

    assert answer.code == 0


def test_a_secret_may_come_from_a_file(command: Cli, database: str, tmp_path: Path) -> None:
    """--database-url-file keeps the password out of the process list."""
    (tmp_path / "url").write_text(f"{database}\n")

    answer = command("status", "--database-url-file", str(tmp_path / "url"))

    assert answer.code == 0


def test_a_password_is_never_printed(command: Cli) -> None:
    """Whether malformed, refused or unreachable."""
    for url in ("postgresql://u:hunter2@127.0.0.1:1/x", "hunter2", "password=hunter2 port=hunter"):
        answer = command("status", "--database-url", url)

        assert answer.code in (1, 2)
        assert "hunter2" not in answer.out + answer.err


def test_a_database_that_is_away_is_one_sentence(command: Cli) -> None:
    """Exit 1: nothing is wrong with the usage."""
    answer = command("status", "--database-url", "postgresql://127.0.0.1:1/x")

    assert answer.code == 1
    assert "the database does not answer" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_missing_schema_says_what_to_run(command: Cli, empty_database: str) -> None:
    """Exit 1 and the command that creates it."""
    answer = command("pending", "--database-url", empty_database)

    assert answer.code == 1
    assert "outbox-migrate up" in answer.err


def test_every_setting_is_a_flag_of_run(cli: Cli) -> None:
    """The table of flags has every variable there is, and `run` takes those it reads."""
    listed = cli("status", OUTBOX_NONSENSE="1").err.partition("there are: ")[2]
    (run,) = (command for command in COMMANDS if command.name == "run")

    known = set(listed.strip().split(", "))
    assert known == {name for setting in TABLE for name in setting.variables}
    assert {*TABLE} - {*run.settings} == {MANAGEMENT_URL}


@pytest.mark.parametrize("name", ["run", "doctor"])
def test_a_password_that_is_not_encoded_is_not_shown(
    command: Cli, database: str, name: str
) -> None:
    """It would be taken for a port, and repeated in a traceback."""
    url = "amqp://relay:hunter2#x@mq/shop"
    answer = command(name, OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=url)

    assert answer.code == 2
    assert "OUTBOX_BROKER_URL is malformed: percent-encode" in answer.err
    assert "hunter2" not in answer.err + answer.out
