"""`pause`, `resume` and `routes`, and where else a pause is told of."""

import json
from datetime import UTC, datetime, timedelta

from tests.relay.conftest import Cli, Outbox

HELD = """
WITH held AS (DELETE FROM outbox.ready r USING outbox.message m
               WHERE m.message_id = %s AND r.id = m.id RETURNING r.id, r.slot)
INSERT INTO outbox.parked (id, slot, state, available_at, last_error, route)
SELECT id, slot, 'retry', now() + interval '1 day', 'paused: queue:mail', chr(30) || 'queue:mail'
FROM held
"""


def test_a_pause_is_shown_with_who_and_why(cli: Cli, outbox: Outbox) -> None:
    """By routes, status and doctor; resume ends it, and both are on the record."""
    answer = cli("pause", "--queue", "mail", "--reason", "it is down", "--until", "2h")
    assert answer.code == 0
    assert answer.out.startswith("queue:mail is paused until ")

    [pause] = cli("routes", "--json").json()["paused"]
    assert (pause["target"], pause["kind"], pause["pattern"]) == ("queue:mail", "queue", "mail")
    assert pause["reason"] == "it is down"
    assert "@" in pause["who"]
    ends = datetime.fromisoformat(pause["until"]) - datetime.now(UTC)
    assert timedelta(hours=1) < ends < timedelta(hours=3)
    assert [each["target"] for each in cli("status", "--json").json()["paused"]] == ["queue:mail"]
    assert "paused\tqueue:mail, 0 message(s) set aside, by " in cli("status").out
    assert "\tset aside\treason\n" in cli("routes").out
    assert "outbox-relay resume --queue 'mail'" in cli("doctor").out

    assert cli("resume", "--queue", "mail").out == "1 resumed\n"
    assert cli("routes", "--json").json()["paused"] == []
    rows = outbox.connection.execute("SELECT action, why FROM outbox.action ORDER BY id").fetchall()
    assert rows == [("pause", "queue:mail: it is down"), ("resume", "queue:mail: ")]


def test_routes_shows_what_waits_and_what_is_held(cli: Cli, outbox: Outbox) -> None:
    """By exchange and routing key, with what holds it; scheduled messages do not wait."""
    outbox.add(queue="other"), outbox.add(queue="other", eta="1 hour")
    outbox.add(queue="letters", exchange="post", ordering_key="a")
    mail = outbox.add(queue="mail")
    outbox.add(queue="mail")
    outbox.connection.execute(HELD, [mail])
    cli("pause", "--queue", "mail")

    shown = cli("routes", "--json").json()

    assert shown["routes"] == [
        {"exchange": "", "routing_key": "mail", "waiting": 2, "held": 1, "held_by": ["queue:mail"]},
        {"exchange": "", "routing_key": "other", "waiting": 1, "held": 0, "held_by": []},
        {"exchange": "post", "routing_key": "letters", "waiting": 1, "held": 0, "held_by": []},
    ]
    assert shown["paused"][0]["messages"] == 1
    assert "mail\t2\t1\tqueue:mail" in cli("routes").out.splitlines()
    pending = json.loads(cli("pending", "--json").out)
    assert [each["last_error"] for each in pending if each["message_id"] == mail] == [
        "paused: queue:mail"
    ]


def test_doctor_does_not_call_what_is_paused_stuck_or_refused(cli: Cli, outbox: Outbox) -> None:
    """It warns of the pause, and of nothing else about it."""
    outbox.connection.execute(HELD, [outbox.add(queue="mail")])
    cli("pause", "--queue", "mail", "--reason", "on purpose")

    report = cli("doctor").out

    assert "queue:mail, 1 message(s) set aside, by " in report
    assert "1 pending; 1 of them are held on purpose" in report
    assert "refused messages" not in report


def test_full_queues_and_rates_are_told_of(cli: Cli, outbox: Outbox) -> None:
    """By status and doctor: a full queue is a warning, a turn that is waited for is none."""
    for target in ("depth:mail", "rate:task:shop.*"):
        held = HELD.replace("'queue:mail'", f"'{target}'")
        outbox.connection.execute(held.encode(), [outbox.add(queue="mail")])

    status, report = cli("status"), cli("doctor").out

    assert [each["target"] for each in cli("status", "--json").json()["held"]] == [
        "depth:mail",
        "rate:task:shop.*",
    ]
    assert "held\t1 message(s) set aside by depth:mail" in status.out
    assert "warn     held: 1 message(s) wait for room in queue 'mail' (OUTBOX_MAX_DEPTH" in report
    assert "ok       held: 1 message(s) wait for their turn: task:shop.* is limited" in report


def test_what_is_paused_is_named_once(cli: Cli) -> None:
    """Neither nothing, nor two things; and what was not paused cannot be resumed."""
    assert "one of the arguments --queue --exchange --task --all is required" in cli("pause").err
    assert "not allowed with argument" in cli("pause", "--queue", "a", "--all").err
    assert cli("pause", "--task", "").code == 2
    past = cli("pause", "--all", "--until", "2001-01-01")
    assert (past.code, "until has to be a time to come" in past.err) == (1, True)

    answer = cli("resume", "--queue", "mail")
    assert answer.code == 1
    assert "nothing of that was paused" in answer.err


def test_a_rate_is_shown_changed_and_ended(cli: Cli, outbox: Outbox) -> None:
    """With who and why; every change is on the record."""
    what = ("--queue", "mail")
    assert cli("rate", *what, "--per-second", "5").out == "queue:mail: 5 a second\n"
    cli("rate", *what, "--per-second", "0.5", "--burst", "20", "--reason", "their limit")

    [shown] = cli("routes", "--json").json()["rates"]
    assert (shown["target"], shown["per_second"], shown["burst"]) == ("queue:mail", 0.5, 20)
    assert (shown["reason"], shown["messages"]) == ("their limit", 0)
    assert "queue:mail\t0.5\t20\t" in cli("routes").out

    assert cli("rate", *what, "--off").out == "queue:mail: no limit\n"
    assert cli("rate", *what, "--off").code == 1
    assert cli("rate", *what, "--per-second", "fast").code == 2
    assert cli("rate", *what, "--per-second", "2000000").code == 1
    rows = outbox.connection.execute("SELECT action, why FROM outbox.action ORDER BY id").fetchall()
    assert rows == [
        ("rate", "queue:mail, 5 a second: "),
        ("rate", "queue:mail, 0.5 a second: their limit"),
        ("rate", "queue:mail, no limit: "),
    ]


def test_resume_all_ends_every_pause(cli: Cli) -> None:
    """Also those of single names."""
    for what in (("--queue", "a"), ("--exchange", "b"), ("--task", "c.*"), ("--all",)):
        assert cli("pause", *what).code == 0

    assert cli("resume", "--all").out == "4 resumed\n"
