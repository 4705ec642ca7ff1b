"""What a terminal shows: every id, name and reason readable at 80 columns, and at 58."""

import re
import sys
from pathlib import Path

import pytest

from command_samples import shell
from tests.relay.conftest import Outbox

REASON = "404 NOT_FOUND: no exchange 'payments' in virtual host 'shop'"
TASK = "shop.invoicing.tasks.send_invoice"


def on_terminal(columns: int, *arguments: str, **environment: str) -> str:
    """What the command shows on a terminal that is so wide."""
    return shell.on_terminal(
        [sys.executable, "-m", "outbox_relay", *arguments], columns, environment
    )


@pytest.mark.parametrize("columns", [58, 80, 100])
@pytest.mark.parametrize("name", ["dead", "pending", "scheduled", "expired", "sent"])
def test_a_list_breaks_no_id_name_or_word(
    outbox: Outbox, database: str, columns: int, name: str
) -> None:
    """Each is found as a whole, and no line is longer than the terminal."""
    made = {
        "dead": lambda: outbox.add_dead(TASK, REASON),
        "pending": lambda: outbox.add_refused(TASK, REASON),
        "scheduled": lambda: outbox.add(TASK, eta="1 hour"),
        "expired": lambda: outbox.add_expired(TASK),
        "sent": lambda: outbox.add_sent(TASK),
    }[name]()

    shown = on_terminal(columns, name, OUTBOX_DATABASE_URL=database)

    assert made in shown
    assert TASK in shown
    assert all(len(line) <= columns for line in shown.splitlines()), shown
    if name in ("dead", "pending"):
        assert all(word in shown.split() for word in REASON.split()), shown


@pytest.mark.parametrize("columns", [58, 80])
def test_show_breaks_reasons_between_words(outbox: Outbox, database: str, columns: int) -> None:
    """Below the reason, and below what happened, so that names stay apart from what they say."""
    made = outbox.add_dead(TASK, REASON)

    shown = on_terminal(columns, "show", made, OUTBOX_DATABASE_URL=database)

    lines = [line for line in shown.splitlines() if "{" not in line]  # JSON is copied as it is
    assert " ".join(shown.split()).count(REASON) == 2
    assert all(len(line) <= columns for line in lines), shown
    assert all(re.match(r"\w+ |" + " " * 18, line) for line in lines), shown


def test_a_wide_terminal_has_a_table(outbox: Outbox, database: str) -> None:
    """A line for each message."""
    made = outbox.add_dead(TASK, REASON)

    lines = on_terminal(220, "dead", OUTBOX_DATABASE_URL=database).splitlines()

    assert lines[0].split()[:2] == ["id", "message_id"]
    assert made in lines[1]
    assert REASON in lines[1]


@pytest.mark.parametrize("columns", [58, 80])
def test_status_keeps_names_apart_from_what_they_say(
    outbox: Outbox, database: str, columns: int
) -> None:
    """A long line, such as a pause with its reason, breaks between words and changes no other."""
    outbox.add(TASK)
    reason = "the provider of mails is down until they have found out why"
    outbox.connection.execute("SELECT outbox.pause(queue => 'mail', reason => %s)", [reason])

    shown = on_terminal(columns, "status", OUTBOX_DATABASE_URL=database)

    lines = shown.splitlines()
    assert ["pending", "1"] in [line.split() for line in lines], shown
    assert reason in " ".join(shown.split())
    assert all(len(line) <= columns for line in lines), shown


@pytest.mark.parametrize("columns", [58, 80])
def test_status_of_many_fits_also_where_one_cannot_be_asked(
    database: str, tmp_path: Path, columns: int
) -> None:
    """Why stands below the others, in words that are whole, once for all that it is about."""
    file = tmp_path / "outboxes"
    file.write_text(f"{database} outbox name=shop\npostgresql://127.0.0.1:1/a tenant_1 tenant_2\n")

    shown = on_terminal(columns, "status", OUTBOX_DATABASES_FILE=str(file))

    lines = shown.splitlines()
    assert "a/tenant_1, a/tenant_2: the database does not answer:" in " ".join(shown.split())
    assert shown.count("does not answer") == 1
    assert all(len(line) <= columns for line in lines), shown
    if columns >= 80:
        assert lines[0].split()[:2] == ["outbox", "pending"]
        assert ["shop", "0", "-"] in [line.split()[:3] for line in lines]


@pytest.mark.parametrize("columns", [58, 80])
def test_doctor_breaks_between_words(database: str, columns: int) -> None:
    """What follows is indented, and what to do begins with an arrow."""
    shown = on_terminal(
        columns,
        "doctor",
        OUTBOX_DATABASE_URL=database,
        OUTBOX_BROKER_URL="amqp://u:p@127.0.0.1:1//",
    )

    sentence = "nothing listens there: start the server, or correct host and port"
    assert "-> nothing listens there:" in shown
    assert sentence in " ".join(shown.split())
    lines = shown.splitlines()
    assert all(len(line) <= columns for line in lines if len(line.split()) > 2), shown


def test_log_lines_are_for_whoever_reads_them(database: str) -> None:
    """On a terminal text for people, unless JSON is asked for."""
    servers = {
        "OUTBOX_DATABASE_URL": database,
        "OUTBOX_BROKER_URL": "amqp://u:p@127.0.0.1:1//",
        "OUTBOX_GRACE_PERIOD": "1s",
    }

    people = on_terminal(80, "run", "--drain", **servers)
    programs = on_terminal(80, "run", "--drain", OUTBOX_LOG_FORMAT="json", **servers)

    assert "database_up" in people
    assert '{"' not in people
    assert '"event": "database_up"' in programs
