"""Looking: each list shows its state and no other, cheaply, and nothing shows a payload unasked."""

import json

import pytest
from psycopg import sql

from outbox_relay.configuration import from_environment
from outbox_relay.operator.listing import LISTINGS, Listing
from outbox_relay.operator.session import Session
from tests.fixtures.rows import commit_twin
from tests.relay.conftest import Cli, Outbox


def test_each_list_shows_its_own_messages_and_no_others(cli: Cli, outbox: Outbox) -> None:
    """pending, scheduled, dead, expired and sent are disjoint and complete."""
    ready, refused = outbox.add(), outbox.add_refused()
    later, dead, sent = outbox.add(eta="1 hour"), outbox.add_dead(), outbox.add_sent()
    expired = outbox.add_expired()

    shown = {x.name: [e["message_id"] for e in cli(x.name, "--json").json()] for x in LISTINGS}

    assert shown == {
        "pending": [ready, refused],
        "scheduled": [later],
        "dead": [dead],
        "expired": [expired],
        "sent": [sent],
    }


def test_a_list_has_the_columns_of_its_view(cli: Cli, outbox: Outbox) -> None:
    """The JSON objects' keys are the columns the contract promises for the views."""
    outbox.add(), outbox.add(eta="1 hour"), outbox.add_dead(), outbox.add_sent()
    outbox.add_expired()

    for listing in LISTINGS:
        columns = outbox.connection.execute(f"SELECT * FROM outbox.{listing.name}").description

        (entry,) = cli(listing.name, "--json").json()
        assert [column.name for column in columns or []] == list(entry)


def test_limit_and_task_choose(cli: Cli, outbox: Outbox) -> None:
    """--task filters, --limit stops, the oldest pending message comes first."""
    first = outbox.add("shop.bill")
    outbox.add("shop.mail")
    outbox.add("shop.bill")

    entries = cli("pending", "--task", "shop.bill", "--limit", "1", "--json").json()

    assert [first] == [entry["message_id"] for entry in entries]


def test_in_a_pipe_a_list_is_lines_of_tab_separated_columns(cli: Cli, outbox: Outbox) -> None:
    """A header, a line each, nothing cut off, no colours."""
    dead = outbox.add_dead(error="404 NOT_FOUND: no exchange 'orders' " + "x" * 200)

    header, line = cli("dead").out.splitlines()

    assert header.split("\t")[:4] == ["id", "message_id", "task", "to"]
    assert line.split("\t")[1:4] == [dead, "shop.bill", "celery"]
    assert line.endswith("x" * 200)


def test_nothing_in_a_row_reaches_the_terminal_as_a_control_character(
    cli: Cli, outbox: Outbox
) -> None:
    """A task name with an escape sequence and a line break is shown, not obeyed."""
    outbox.add("evil\x1b[2J\nforged")

    out = cli("pending").out

    assert "\x1b" not in out
    assert r"evil\x1b[2J\nforged" in out


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda listing: listing.name)
def test_a_list_reads_no_more_than_it_shows(database: str, listing: Listing) -> None:
    """Every list is a walk along an index, whatever the size or the statistics of the tables."""
    settings = from_environment({"OUTBOX_DATABASE_URL": database}, need_broker=False)
    with Session.open(settings) as session:
        explain = sql.SQL("EXPLAIN " + listing.query).format(outbox=sql.Identifier("outbox"))
        plan = session.connection.execute(explain, {"task": None, "limit": 20}).fetchall()

    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan" not in text
    assert "Bitmap" not in text


def test_show_finds_by_message_id_and_by_row(cli: Cli, outbox: Outbox) -> None:
    """Either id shows the same message."""
    message_id = outbox.add_dead(error="404 no exchange")

    by_message = cli("show", message_id, "--json").json()
    by_row = cli("show", str(outbox.row(message_id)), "--json").json()

    assert by_message == by_row
    (shown,) = by_message
    assert shown["state"] == "dead"
    assert shown["last_error"] == "404 no exchange"
    assert shown["attempts"] == 3


def test_show_tells_two_messages_with_one_number_apart(
    cli: Cli, outbox: Outbox, database: str
) -> None:
    """By its message id a message is shown alone, with its own life; by the number both are."""
    first = outbox.add_sent(ago="10 m")
    row = outbox.row(first)
    twin = commit_twin(database, first, available_in=3600)
    outbox.connection.execute(
        "INSERT INTO outbox.action (who, action, why, ids, slots)"
        " SELECT 'ada', 'replay', '', ARRAY[id], ARRAY[slot] FROM outbox.message"
        " WHERE message_id = %s",
        (first,),
    )

    (shown,) = cli("show", first, "--json").json()
    (other,) = cli("show", twin, "--json").json()

    assert (shown["state"], other["state"]) == ("sent", "scheduled")
    assert {step["what"] for step in shown["life"]} == {"created", "confirmed", "replayed by ada"}
    assert {step["what"] for step in other["life"]} == {"created", "due"}
    both = cli("show", str(row), "--json").json()
    assert [each["message_id"] for each in both] == [first, twin]


@pytest.mark.parametrize("state", ["pending", "scheduled", "dead", "expired", "sent"])
def test_show_names_the_view_a_message_is_in(cli: Cli, outbox: Outbox, state: str) -> None:
    """The state is the name of the list that shows it."""
    made = {
        "pending": outbox.add,
        "scheduled": lambda: outbox.add(eta="1 hour"),
        "dead": outbox.add_dead,
        "expired": outbox.add_expired,
        "sent": outbox.add_sent,
    }[state]()

    (shown,) = cli("show", made, "--json").json()

    assert state == shown["state"]
    assert (shown["sent_at"] is not None) == (state == "sent")
    assert (shown["expired_at"] is not None) == (state == "expired")


def test_show_keeps_the_payload_to_itself_unless_asked(cli: Cli, outbox: Outbox) -> None:
    """--body adds the body; without it only its size is shown."""
    message_id = outbox.add()

    assert "[[42], {}, {}]" not in cli("show", message_id).out
    assert "body_bytes        14" in cli("show", message_id).out
    assert "[[42], {}, {}]" in cli("show", message_id, "--body").out


@pytest.mark.parametrize("odd", ["\\u0000", "\\ud83d", "\\ude00", "\\ude00\\ud83d"])
def test_odd_headers_can_be_looked_at(cli: Cli, outbox: Outbox, odd: str) -> None:
    """Escapes that no text can hold are legal in json: shown as they are, and hiding no other."""
    strange = outbox.add_sent(headers=f'{{"x": "{odd}", "argsrepr": "(1,)"}}')
    usual = outbox.add_sent()

    shown = {entry["message_id"]: entry["args"] for entry in cli("sent", "--json").json()}
    (whole,) = cli("show", strange, "--json").json()

    assert shown == {strange: None, usual: "(42,)"}
    assert whole["headers"] == {"x": json.loads(f'"{odd}"')}
    assert odd in cli("show", strange).out


def test_show_says_when_a_relay_holds_the_message(cli: Cli, outbox: Outbox) -> None:
    """A claimed message is pending, with the time its claim ends."""
    message_id = outbox.add()
    outbox.lease(message_id)

    (shown,) = cli("show", message_id, "--json").json()

    assert shown["state"] == "pending"
    assert shown["claimed_until"]


def test_show_of_an_unknown_id_is_a_problem_with_a_reason(cli: Cli, outbox: Outbox) -> None:
    """Exit 1, and one sentence with what may have become of it."""
    answer = cli("show", "nobody")

    assert answer.code == 1
    assert "no message has the id 'nobody'" in answer.err
