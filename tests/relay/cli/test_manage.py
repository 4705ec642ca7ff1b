"""Steering: each command changes what it names and nothing else, and asks before it destroys."""

import pytest

from tests.fixtures.broker import Broker
from tests.fixtures.rows import commit_twin
from tests.relay.conftest import Cli, Outbox


def test_retry_by_id_makes_dead_messages_pending(cli: Cli, outbox: Outbox) -> None:
    """Message ids and row ids both serve; the others stay dead."""
    first, second, other = outbox.add_dead(), outbox.add_dead(), outbox.add_dead()

    answer = cli("retry", first, str(outbox.row(second)))

    assert (answer.code, answer.out) == (0, "2 pending again\n")
    assert outbox.ids("pending") == {first, second}
    assert outbox.ids("dead") == {other}


def test_retry_by_task_and_all(cli: Cli, outbox: Outbox) -> None:
    """--task takes the dead of one task, --all the rest."""
    bill, mail = outbox.add_dead("shop.bill"), outbox.add_dead("shop.mail")

    cli("retry", "--task", "shop.bill")
    assert outbox.ids("pending") == {bill}

    cli("retry", "--all")
    assert outbox.ids("pending") == {bill, mail}


def test_retry_of_more_than_a_page(cli: Cli, outbox: Outbox) -> None:
    """However many are dead, --all reaches every one."""
    outbox.connection.execute(
        """
        WITH made AS (SELECT outbox.enqueue('shop.bill') FROM generate_series(1, 2500))
        SELECT count(*) FROM made
        """
    )
    outbox.connection.execute(
        """
        WITH refused AS (DELETE FROM outbox.ready RETURNING id, slot)
        INSERT INTO outbox.parked (id, slot, state, available_at)
        SELECT id, slot, 'dead', now() FROM refused
        """
    )

    answer = cli("retry", "--all")

    assert answer.out == "2500 pending again\n"
    assert not outbox.ids("dead")


def test_an_id_that_is_not_dead_is_named(cli: Cli, outbox: Outbox) -> None:
    """What could be done is done; the rest is named and the exit code is 1."""
    dead, sent = outbox.add_dead(), outbox.add_sent()

    answer = cli("retry", dead, sent, "nobody")

    assert answer.code == 1
    assert answer.out == "1 pending again\n"
    assert f"{sent} is not dead" in answer.err
    assert "no message has the id 'nobody'" in answer.err


def test_a_number_that_two_messages_have_names_none(
    cli: Cli, outbox: Outbox, database: str
) -> None:
    """It says which two, and leaves both alone."""
    first = outbox.add_dead()
    twin = commit_twin(database, first)

    answer = cli("discard", str(outbox.row(first)), "--yes")

    assert answer.code == 2
    assert "is the row of 2 messages" in answer.err
    assert first in answer.err
    assert twin in answer.err
    assert (outbox.ids("dead"), outbox.ids("pending")) == ({first}, {twin})
    assert cli("retry", first).out == "1 pending again\n"
    assert outbox.ids("pending") == {first, twin}


def test_discard_deletes_dead_and_pending_by_id(cli: Cli, outbox: Outbox) -> None:
    """They are gone, from every list; what is sent stays."""
    dead, pending, sent = outbox.add_dead(), outbox.add(), outbox.add_sent()

    answer = cli("discard", dead, pending, sent, "--yes")

    assert answer.code == 1
    assert f"{sent} is neither dead nor pending" in answer.err
    assert cli("show", dead).code == cli("show", pending).code == 1
    assert outbox.ids("sent") == {sent}


def test_discard_all_takes_only_the_dead(cli: Cli, outbox: Outbox) -> None:
    """A pending message is never deleted in bulk."""
    dead, pending = outbox.add_dead(), outbox.add()

    assert cli("discard", "--all", "--yes").out == "1 deleted\n"
    assert cli("show", dead).code == 1
    assert outbox.ids("pending") == {pending}


def test_discard_leaves_alone_what_a_relay_holds(cli: Cli, outbox: Outbox) -> None:
    """It may be on the wire already."""
    held = outbox.add()
    outbox.lease(held)

    answer = cli("discard", held, "--yes")

    assert answer.code == 1
    assert outbox.ids("pending") == {held}


def test_replay_sends_an_interval_again(cli: Cli, outbox: Outbox) -> None:
    """Only what was confirmed in it, with the ids it had."""
    old, new = outbox.add_sent(ago="3 hours"), outbox.add_sent(ago="1 hour")

    answer = cli("replay", "--since", "2h", "--yes")

    assert (answer.code, answer.out) == (0, "1 pending again\n")
    assert outbox.ids("pending") == {new}
    assert outbox.ids("sent") == {old}


def test_replay_by_task_and_until(cli: Cli, outbox: Outbox) -> None:
    """--task and --until narrow it down."""
    bill = outbox.add_sent("shop.bill", ago="3 hours")
    outbox.add_sent("shop.mail", ago="3 hours")
    outbox.add_sent("shop.bill", ago="1 hour")

    cli("replay", "--since", "4h", "--until", "2h", "--task", "shop.bill", "--yes")

    assert outbox.ids("pending") == {bill}


def test_replay_of_many_batches_sends_each_once(cli: Cli, outbox: Outbox) -> None:
    """An interval longer than a portion is replayed whole."""
    sent = {outbox.add_sent(ago=f"{n} min") for n in range(45)}

    assert cli("replay", "--since", "1h", "--yes").out == "45 pending again\n"
    assert outbox.ids("pending") == sent


def record(outbox: Outbox) -> list[tuple[object, ...]]:
    """What was done to how many messages, and why; oldest first."""
    return outbox.connection.execute(
        "SELECT action, cardinality(ids), why FROM outbox.action ORDER BY id"
    ).fetchall()


def test_what_is_done_is_on_the_record(cli: Cli, outbox: Outbox) -> None:
    """By whom, to what and why; each page of many, and nothing of what was not done."""
    dead, pending, other = outbox.add_dead(), outbox.add(), outbox.add_dead()
    outbox.add_sent(ago="1 hour")

    cli("retry", dead, "--why", "ticket 4711")
    cli("retry", dead, "nobody")
    cli("discard", pending, other, "--yes")
    cli("replay", "--since", "2h", "--yes", "--why", "the consumer was broken")

    assert record(outbox) == [
        ("retry", 1, "ticket 4711"),
        ("discard", 1, ""),
        ("cancel", 1, ""),
        ("replay", 1, "the consumer was broken"),
    ]
    who = outbox.connection.execute("SELECT DISTINCT who FROM outbox.action").fetchall()
    assert [name.count("@") for (name,) in who] == [1]


@pytest.mark.parametrize("at", ["2199-01-02T03:04:05Z", "2199-01-02T03:04:05"])
def test_reschedule_holds_until_another_time(cli: Cli, outbox: Outbox, at: str) -> None:
    """What is pending, by message id or row; what is sent is named, and the exit code is 1."""
    first, second, sent = outbox.add(), outbox.add(), outbox.add_sent()

    answer = cli("reschedule", first, str(outbox.row(second)), sent, "--at", at)

    assert (answer.code, answer.out) == (1, "2 rescheduled\n")
    assert f"{sent} is neither pending nor scheduled" in answer.err
    assert outbox.ids("scheduled") == {first, second}
    assert record(outbox) == [("reschedule", 2, "")]


def test_reschedule_takes_a_duration(cli: Cli, outbox: Outbox) -> None:
    """In two hours; and with none of it, at once."""
    held = outbox.add()

    assert cli("reschedule", held, "--at", "2h").code == 0
    assert outbox.ids("scheduled") == {held}
    assert cli("reschedule", held, "--at", "0s").code == 0
    assert outbox.ids("pending") == {held}


def test_reschedule_needs_a_message_and_a_time(cli: Cli, outbox: Outbox) -> None:
    """Usage, and nothing is changed."""
    held = outbox.add()

    assert cli("reschedule", held).code == 2
    assert cli("reschedule", "--at", "2h").code == 2
    assert cli("reschedule", held, "--at", "soon").code == 2
    assert cli("reschedule", held, "--at", "2h", "--why", "x" * 2001).code == 2
    assert outbox.ids("pending") == {held}


def test_purge_forgets_what_is_sent_and_old(cli: Cli, outbox: Outbox) -> None:
    """Unsent messages survive any purge, new ones one with an age."""
    pending, dead, sent = outbox.add(), outbox.add_dead(), outbox.add_sent()

    cli("purge", "--older-than", "1h", "--yes")
    assert outbox.ids("sent") == {sent}

    cli("purge", "--older-than", "0", "--yes")
    assert outbox.ids("sent") == set()
    assert outbox.ids("pending") == {pending}
    assert outbox.ids("dead") == {dead}


def test_an_expired_message_is_over(cli: Cli, outbox: Outbox, broker: Broker) -> None:
    """Nothing brings it back, as its time would not come back either; retention forgets it."""
    outbox.connection.execute(
        "INSERT INTO outbox.message (message_id, task, exchange, routing_key, headers, body,"
        " content_type, content_encoding, expires_at) VALUES ('late', 'shop.bill', '', 'celery',"
        ' \'{"task": "shop.bill", "ignore_result": true}\', \'[[], {}, {}]\','
        " 'application/json', 'utf-8', now() - interval '1 s')"
    )
    assert cli("run", "--drain", OUTBOX_BROKER_URL=broker.url).code == 0

    cli("retry", "--all")
    assert outbox.ids("dead") | outbox.ids("pending") | outbox.ids("sent") == set()

    cli("purge", "--older-than", "1h", "--yes")
    assert outbox.row("late")
    cli("purge", "--older-than", "0", "--yes")
    assert outbox.connection.execute("SELECT count(*) FROM outbox.message").fetchone() == (0,)


DESTRUCTIVE = [
    ("discard", "--all"),
    ("discard", "some-id"),
    ("replay", "--since", "1h"),
    ("purge", "--older-than", "1h"),
]


@pytest.mark.parametrize("arguments", DESTRUCTIVE, ids=" ".join)
def test_without_a_terminal_destruction_needs_yes(
    cli: Cli, outbox: Outbox, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2 and a sentence that says what would be done and how to confirm it."""
    outbox.add_dead(), outbox.add_sent()

    answer = cli(*arguments)

    assert answer.code == 2
    assert "confirm with --yes" in answer.err
    assert len(outbox.ids("dead")) == len(outbox.ids("sent")) == 1


@pytest.mark.parametrize(("said", "code", "left"), [("y", 0, 0), ("n", 1, 1), ("", 1, 1)])
def test_on_a_terminal_it_asks(
    cli: Cli, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, said: str, code: int, left: int
) -> None:
    """Only a yes destroys."""
    outbox.add_dead()
    asked: list[str] = []

    def answers(question: str) -> str:
        asked.append(question)
        return said

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answers)

    answer = cli("discard", "--all")

    assert asked == ["Delete every dead message for good? [y/N] "]
    assert answer.code == code
    assert len(outbox.ids("dead")) == left
