"""`audit` names what was confirmed and never finished, alone; `replay --missing` heals it."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from kombu import Connection, Queue
from psycopg import sql

from outbox_migrations import upgrade
from outbox_relay.cli import replay
from outbox_relay.operator.queries import REPLAYS_ALONE
from outbox_relay.operator.session import Session
from tests.fixtures.broker import Broker
from tests.fixtures.receipts import NOTE
from tests.fixtures.rows import commit_twin
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Answer, Cli, Outbox

KEYS = {"message_id", "task", "queue", "sent_at", "place", "certain", "reason"}


@pytest.fixture
def inbox(outbox: Outbox) -> psycopg.Connection[Any]:
    """The inbox of the same database, which has watched two tasks for three days."""
    watch(outbox.connection, ago="3 days")
    return outbox.connection


def watch(connection: psycopg.Connection[Any], ago: str = "1 day") -> None:
    """Workers have left receipts of these tasks for so long."""
    connection.execute(
        "INSERT INTO inbox.watched SELECT unnest(ARRAY['shop.bill', 'shop.mail']),"
        " clock_timestamp() - %s::interval",
        (ago,),
    )


def note(connection: psycopg.Connection[Any], id: str, outcome: str, run: int = 0) -> None:
    """A worker leaves a receipt."""
    told = {"id": id, "task": "shop.bill", "outcome": outcome, "run": run, "finished": 0}
    connection.execute(NOTE, ("w@host", json.dumps([told])))


def confirm_again(connection: psycopg.Connection[Any], id: str, ago: str = "0 s") -> None:
    """Somebody had it sent again, and that was confirmed so long ago."""
    connection.execute(
        "INSERT INTO outbox.receipt (sent_at, slot, span, ids)"
        " SELECT now() - %s::interval, slot, int8range(id, id, '[]'), ARRAY[id]"
        " FROM outbox.message WHERE message_id = %s",
        (ago, id),
    )


def named(answer: Answer) -> set[str]:
    """The message ids of an audit."""
    assert answer.err == ""
    return {each["message_id"] for each in answer.json()["missing"]}


def test_what_has_no_receipt_is_named(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """And nothing that ran, waits, is young, or is of a task that leaves none."""
    ran, failed, lost = (outbox.add_sent(ago="10 m") for _ in range(3))
    remembered = outbox.add_sent(ago="10 m")
    outbox.add_sent(ago="1 m")
    outbox.add_sent("an.event", ago="10 m")
    outbox.add()
    outbox.add_dead()
    note(inbox, ran, "succeeded")
    note(inbox, failed, "failed")
    inbox.execute(
        "INSERT INTO inbox.processed (message_id, task) VALUES (%s, 'shop.bill')", (remembered,)
    )

    answer = cli("audit", "--json")

    assert answer.code == 1
    assert named(answer) == {lost}
    assert answer.json()["checked"] == 5
    [record] = answer.json()["missing"]
    assert record.keys() == KEYS
    assert (record["task"], record["queue"]) == ("shop.bill", "celery")
    assert (record["place"], record["certain"]) == ("unknown", False)
    assert "OUTBOX_BROKER_URL is not set" in record["reason"]
    assert inbox.execute("SELECT message_id FROM outbox.missing").fetchall() == [(lost,)]


def test_nothing_missing_is_a_success(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """Exit code 0, as for whoever asks from cron."""
    note(inbox, outbox.add_sent(ago="10 m"), "succeeded")

    answer = cli("audit")

    assert (answer.code, answer.out) == (0, "1 confirmed messages checked, 0 missing\n")


def test_what_is_looked_at_can_be_chosen(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """By age and by task."""
    old = outbox.add_sent(ago="2 h")
    mail = outbox.add_sent("shop.mail", ago="10 m")
    young = outbox.add_sent(ago="1 m")

    assert named(cli("audit", "--json")) == {old, mail}
    assert named(cli("audit", "--json", "--older-than", "10s")) == {old, mail, young}
    assert named(cli("audit", "--json", "--since", "1h")) == {mail}
    assert named(cli("audit", "--json", "--task", "shop.mail")) == {mail}


def test_what_was_sent_before_receipts_were_left_is_not_missing(cli: Cli, outbox: Outbox) -> None:
    """The day that a project begins to leave receipts names no message of the week before."""
    watch(outbox.connection, ago="1 h")
    outbox.add_sent(ago="2 h")
    since = outbox.add_sent(ago="30 m")

    assert named(cli("audit", "--json")) == {since}


def test_what_ran_before_it_was_noted_as_sent_is_not_missing_once_that_is_purged(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """A relay was cut off from its database for half an hour; the outbox keeps more than the inbox.

    Replayed, they would run once more: nothing remembers that they have run.
    """
    noted, remembered = outbox.add_sent(ago="23 h 45 m"), outbox.add_sent(ago="23 h 45 m")
    note(inbox, noted, "succeeded")
    inbox.execute("UPDATE inbox.receipt SET noted_at = now() - interval '24 h 15 m'")
    inbox.execute(
        "INSERT INTO inbox.processed (message_id, task, processed_at)"
        " VALUES (%s, 'shop.bill', now() - interval '24 h 15 m')",
        (remembered,),
    )
    assert named(cli("audit", "--json")) == set()

    inbox.execute("SELECT inbox.purge('1 day')")

    assert named(cli("audit", "--json")) == set()


@pytest.mark.parametrize(
    ("outcome", "place", "certain"),
    [
        ("held", "worker", True),
        ("lost", "gone", True),
        ("unregistered", "gone", True),
        ("undecodable", "gone", True),
    ],
)
def test_what_a_worker_tells_is_the_place(
    cli: Cli,
    outbox: Outbox,
    inbox: psycopg.Connection[Any],
    broker: Broker,
    outcome: str,
    place: str,
    certain: bool,
) -> None:
    """Whether it holds the message, or threw it away."""
    broker.declare("celery")
    note(inbox, outbox.add_sent(ago="10 m"), outcome)

    [record] = cli("audit", "--json", OUTBOX_BROKER_URL=broker.url).json()["missing"]

    assert (record["place"], record["certain"]) == (place, certain)
    assert "w@host" in record["reason"]


def test_a_retry_that_was_lost_is_missing(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """Its first run has a receipt, and the next has none; the first is not missing."""
    first = outbox.add_sent(ago="20 m", headers='{"retries": 0}')
    note(inbox, first, "retried")
    assert named(cli("audit", "--json")) == set()

    retry = outbox.add_sent(ago="10 m", headers='{"lang": "py", "retries": 1}')
    inbox.execute("UPDATE outbox.message SET message_id = %s WHERE message_id = %s", (first, retry))
    rows = inbox.execute("SELECT headers ->> 'retries' FROM outbox.message").fetchall()
    assert len(rows) == 2
    assert len(cli("audit", "--json").json()["missing"]) == 1

    note(inbox, first, "succeeded", run=1)
    assert named(cli("audit", "--json")) == set()


@pytest.mark.parametrize("outcome", ["failed", "rejected", "revoked"])
def test_what_is_sent_again_after_it_ended_has_to_end_once_more(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any], outcome: str
) -> None:
    """A dead letter that somebody retried, say; the receipt is of the first time."""
    once, again, succeeded = (outbox.add_sent(ago="1 h") for _ in range(3))
    for id in (once, again):
        note(inbox, id, outcome)
    note(inbox, succeeded, "succeeded")
    inbox.execute("UPDATE inbox.receipt SET noted_at = now() - interval '59 min'")
    assert named(cli("audit", "--json")) == set()

    for id in (again, succeeded):
        confirm_again(inbox, id, ago="10 m")
    [record] = cli("audit", "--json").json()["missing"]
    assert record["message_id"] == again
    assert inbox.execute("SELECT message_id FROM outbox.missing").fetchall() == [(again,)]

    note(inbox, again, outcome)
    assert named(cli("audit", "--json")) == set()


def test_what_ended_before_its_confirm_was_noted_is_not_missing(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """A relay was cut off from its database for a while, and nobody has sent it again."""
    note(inbox, outbox.add_sent(ago="10 m"), "failed")
    inbox.execute("UPDATE inbox.receipt SET noted_at = now() - interval '20 min'")

    assert named(cli("audit", "--json")) == set()


def test_a_workers_word_is_about_what_was_sent_before_it(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any], broker: Broker
) -> None:
    """A worker threw it away; sent again since then, it waits in its queue."""
    broker.declare("celery")
    lost = outbox.add_sent(ago="1 h")
    note(inbox, lost, "unregistered")
    inbox.execute("UPDATE inbox.receipt SET noted_at = now() - interval '59 min'")

    def place() -> tuple[str, bool]:
        [record] = cli("audit", "--json", OUTBOX_BROKER_URL=broker.url).json()["missing"]
        return record["place"], record["certain"]

    assert place() == ("gone", True)
    confirm_again(inbox, lost, ago="10 m")
    with Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        connection.Producer().publish("x", "celery", headers={"id": lost}, confirm_timeout=10)

    assert place() == ("queue", False)


def test_one_receipt_speaks_for_all_rows_of_its_id(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """An id that was given twice: none of the two is missing, or both are."""
    one, other = outbox.add_sent(ago="10 m"), outbox.add_sent(ago="10 m")
    inbox.execute("UPDATE outbox.message SET message_id = %s WHERE message_id = %s", (one, other))

    assert len(cli("audit", "--json").json()["missing"]) == 2

    note(inbox, one, "succeeded")
    assert named(cli("audit", "--json")) == set()


def test_what_waits_under_the_same_number_hides_nothing(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """A sequence that was restarted gives the number of a lost message to one that is pending."""
    lost = outbox.add_sent(ago="10 m")
    inbox.execute(
        "UPDATE outbox.message SET slot = (slot + 1) % 16, created_at = now() - interval '1 h'"
    )
    inbox.execute("UPDATE outbox.receipt SET slot = (slot + 1) % 16")
    inbox.execute("SELECT setval('outbox.message_id_seq', id, false) FROM outbox.message")
    outbox.add("shop.mail")

    numbers = inbox.execute("SELECT count(DISTINCT id), count(*) FROM outbox.message").fetchone()
    assert numbers == (1, 2)
    assert named(cli("audit", "--json")) == {lost}


def test_replay_missing_sends_none_that_has_the_number_of_one(
    cli: Cli, outbox: Outbox, database: str, inbox: psycopg.Connection[Any]
) -> None:
    """A sequence was restarted: that one was confirmed as well, before or after, and has run."""
    lost = outbox.add_sent(ago="10 m")
    twin = commit_twin(database, lost)
    inbox.execute(
        "WITH done AS (DELETE FROM outbox.ready RETURNING id, slot)"
        " INSERT INTO outbox.receipt (slot, span, ids)"
        " SELECT slot, int8range(id, id, '[]'), ARRAY[id] FROM done"
    )
    note(inbox, twin, "succeeded")

    assert named(cli("audit", "--json")) == {lost}
    assert cli("replay", "--missing", "--yes").out == "1 pending again\n"

    assert outbox.ids("pending") == {lost}
    assert outbox.ids("sent") == {twin}


def test_replay_missing_sends_exactly_those(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """They are pending again; once they are, they are missing no more."""
    ran, lost, young = (outbox.add_sent(ago=ago) for ago in ("10 m", "10 m", "1 m"))
    note(inbox, ran, "succeeded")

    answer = cli("replay", "--missing", "--yes")

    assert (answer.code, answer.out) == (0, "1 pending again\n")
    assert outbox.ids("pending") == {lost}
    assert outbox.ids("sent") == {ran, young}
    assert named(cli("audit", "--json")) == set()
    assert cli("replay", "--missing", "--yes").out == "nothing is missing\n"


def test_what_ends_while_a_person_thinks_it_over_is_not_sent_again(
    cli: Cli,
    outbox: Outbox,
    inbox: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or what somebody else has sent again by then, or a worker holds."""
    ended, sent, waits, held, lost = (outbox.add_sent(ago="10 m") for _ in range(5))

    def think(question: str, *, yes: bool) -> bool:
        assert "5 messages" in question
        assert not yes
        note(inbox, ended, "succeeded")
        confirm_again(inbox, sent)
        inbox.execute("SELECT outbox.replay_message(%s)", (waits,))
        note(inbox, held, "held")
        return True

    monkeypatch.setattr(replay, "agreed", think)

    answer = cli("replay", "--missing")

    assert answer.out.startswith("4 left alone: they have ended since")
    assert answer.out.endswith("\n1 pending again\n")
    assert outbox.ids("pending") == {waits, lost}


def test_two_people_at_one_moment_send_once(
    cli: Cli, outbox: Outbox, database: str, inbox: psycopg.Connection[Any]
) -> None:
    """The second waits for the first, whose message may have been confirmed meanwhile."""
    lost = outbox.add_sent(ago="10 m")
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event = 'advisory'"
    )
    with ThreadPoolExecutor(1) as other, psycopg.connect(database) as first:
        first.execute(sql.SQL(REPLAYS_ALONE).format(outbox=sql.Identifier("outbox")))
        second = other.submit(cli, "replay", "--missing", "--yes")
        wait_until(lambda: inbox.execute(waits).fetchone() == (1,), 10, "the second to wait")
        confirm_again(first, lost)
        first.commit()
        answer = second.result(10)

    assert answer.out.endswith("\n0 pending again\n")
    assert outbox.ids("pending") == set()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("replay", "--yes"), "--missing"),
        (("replay", "--missing", "--until", "1h"), "--older-than"),
    ],
)
def test_replay_needs_to_know_what(cli: Cli, arguments: tuple[str, ...], problem: str) -> None:
    """One of the two ways, and not a mixture."""
    answer = cli(*arguments)

    assert answer.code == 2
    assert problem in answer.err


def test_where_the_broker_has_it(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any], broker: Broker
) -> None:
    """In its queue, among the dead letters, in a queue that is not there, or nowhere."""
    for queue in ("full", "empty", "gave.dead", "gave"):
        broker.declare(queue)
    with Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        for queue in ("full", "gave.dead"):
            connection.Producer().publish({}, queue, confirm_timeout=10)
    for queue in ("full", "empty", "gave", "deleted"):
        outbox.add_sent(queue=queue, ago="10 m")

    answer = cli("audit", "--json", OUTBOX_BROKER_URL=broker.url)

    places = {e["queue"]: (e["place"], e["certain"]) for e in answer.json()["missing"]}
    assert places == {
        "full": ("queue", False),
        "empty": ("gone", True),
        "gave": ("dead letters", False),
        "deleted": ("gone", False),
    }


def test_where_a_redis_has_it(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any], valkey_url: str
) -> None:
    """It can be searched by id: what is there is certain, and is not sent again unless told so."""
    waiting, taken, held, gone = (outbox.add_sent(ago="10 m") for _ in range(4))
    note(inbox, held, "held")
    with Connection(valkey_url) as connection:
        for id in (taken, waiting):
            connection.Producer().publish(
                "x", routing_key="celery", headers={"id": id}, declare=[Queue("celery")]
            )
        channel: Any = connection.default_channel
        assert channel.basic_get("celery").headers["id"] == taken

        answer = cli("audit", "--json", OUTBOX_BROKER_URL=valkey_url)
        left = cli("replay", "--missing", "--yes", OUTBOX_BROKER_URL=valkey_url)

    assert {e["message_id"]: (e["place"], e["certain"]) for e in answer.json()["missing"]} == {
        waiting: ("queue", True),
        taken: ("unacknowledged", True),
        held: ("worker", True),
        gone: ("gone", True),
    }
    assert left.out.splitlines() == [
        "3 left alone: a worker holds them, or the broker has them; --also-held sends these too",
        "1 pending again",
    ]
    assert outbox.ids("pending") == {gone}

    told = cli("replay", "--missing", "--also-held", "--yes", OUTBOX_BROKER_URL=valkey_url)
    assert told.out == "3 pending again\n"


def test_an_inbox_in_another_database(cli: Cli, outbox: Outbox, empty_database: str) -> None:
    """Asked with --inbox-url; without it the way out is named."""
    outbox.connection.execute("DROP SCHEMA inbox CASCADE")
    upgrade(empty_database, component="inbox")
    ran, lost = outbox.add_sent(ago="10 m"), outbox.add_sent(ago="10 m")
    with psycopg.connect(empty_database, autocommit=True) as other:
        watch(other)
        note(other, ran, "succeeded")

    assert named(cli("audit", "--json", "--inbox-url", empty_database)) == {lost}
    assert cli("replay", "--missing", "--yes", "--inbox-url", empty_database).code == 0
    assert outbox.ids("pending") == {lost}

    answer = cli("audit")
    assert answer.code == 1
    assert "--inbox-url" in answer.err
    with pytest.raises(psycopg.errors.UndefinedTable, match="no inbox") as refused:
        outbox.connection.execute("SELECT * FROM outbox.missing")
    assert "--inbox-url" in (refused.value.diag.message_hint or "")


def test_clocks_that_differ(
    cli: Cli, outbox: Outbox, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that began by a clock ahead of ours covers what was sent since, by our own."""
    upgrade(empty_database, component="inbox")
    ahead = timedelta(hours=3)
    with psycopg.connect(empty_database, autocommit=True) as other:
        watch(other, ago="-150 m")  # half an hour ago, by a clock three hours ahead
    before, since = outbox.add_sent(ago="40 m"), outbox.add_sent(ago="20 m")
    value = Session.value

    def skewed(self: Session, statement: str, **parameters: object) -> Any:
        found = value(self, statement, **parameters)
        other = self.connection.info.dbname in empty_database
        return found + ahead if other and isinstance(found, datetime) else found

    monkeypatch.setattr(Session, "value", skewed)

    assert named(cli("audit", "--json", "--inbox-url", empty_database)) == {since}
    assert before in outbox.ids("sent")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_a_login_that_may_not_read_receipts_is_told_the_way_out(
    cli: Cli,
    outbox: Outbox,
    inbox: psycopg.Connection[Any],
    database: str,
    elsewhere: bool,
) -> None:
    """Which role it lacks, in the database that was asked; it is not told that all is lost."""
    outbox.add_sent(ago="10 m")
    inbox.execute("CREATE ROLE apart LOGIN PASSWORD 'p'")
    try:
        inbox.execute(
            "GRANT USAGE ON SCHEMA outbox TO apart;"
            "GRANT SELECT ON ALL TABLES IN SCHEMA outbox TO apart;"
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox TO apart"
        )
        login = psycopg.conninfo.make_conninfo(database, user="apart", password="p")
        url = "OUTBOX_INBOX_URL" if elsewhere else "OUTBOX_DATABASE_URL"

        for command in (("audit",), ("replay", "--missing", "--yes")):
            answer = cli(*command, **{url: login})
            assert answer.code == 1
            assert "permission denied" in answer.err
            role = "inbox_worker" if elsewhere else "outbox_relay"
            assert f"run outbox-migrate grant and GRANT {role} to this login" in answer.err
            assert answer.out == ""
    finally:
        inbox.execute("DROP OWNED BY apart")
        inbox.execute("DROP ROLE apart")


def test_without_any_receipts_the_way_out_is_named(cli: Cli, outbox: Outbox) -> None:
    """Nothing can be missed where nobody leaves receipts."""
    outbox.add_sent(ago="10 m")

    answer = cli("audit")

    assert answer.code == 1
    assert "celery_inbox.receipts(app, connect)" in answer.err


def test_show_tells_what_became_of_it(
    cli: Cli, outbox: Outbox, inbox: psycopg.Connection[Any]
) -> None:
    """When it was created, confirmed and finished; without an inbox, the rest of it."""
    id = outbox.add_sent(ago="10 m")
    [shown] = cli("show", id, "--json").json()
    assert (shown["state"], shown["receipt"]) == ("sent", None)

    note(inbox, id, "failed")

    [shown] = cli("show", id, "--json").json()
    assert shown["created_at"]
    assert shown["sent_at"]
    assert shown["receipt"]["outcome"] == "failed"
    assert shown["receipt"]["worker"] == "w@host"
    assert shown["receipt"]["finished_at"]
    assert '"outcome": "failed"' in cli("show", id).out
    assert {step["what"] for step in shown["life"]} == {
        "created",
        "confirmed",
        "finished: failed",
    }

    inbox.execute("SELECT outbox.act('replay', %s, 'ada', 'lost')", ([outbox.row(id)],))
    [shown] = cli("show", id, "--json").json()
    assert shown["life"][-1]["what"] == "replayed by ada: lost"
    assert "  replayed by ada: lost" in cli("show", id).out

    inbox.execute("DROP SCHEMA inbox CASCADE")
    [shown] = cli("show", id, "--json").json()
    assert (shown["state"], shown["receipt"]) == ("pending", None)
