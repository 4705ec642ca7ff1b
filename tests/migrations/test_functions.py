"""What people call from psql: enqueue, retry, discard, cancel, replay."""

import json
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.fixtures.rows import commit_rows, ids_in, states

Connection = psycopg.Connection[Any]


@pytest.fixture
def session(emptied_database: str) -> Any:
    """A session on the emptied database, committing each statement."""
    with psycopg.connect(emptied_database, autocommit=True) as connection:
        yield connection


def value(connection: Connection, query: str, *parameters: object) -> Any:
    """The one value a query returns."""
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def give_up(connection: Connection, message_id: str, state: str = "dead") -> None:
    """Park a message as the relay would."""
    connection.execute(
        "WITH failed AS (DELETE FROM outbox.ready WHERE id IN"
        " (SELECT id FROM outbox.message WHERE message_id = %s) RETURNING id, slot)"
        " INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)"
        " SELECT id, slot, %s, now(), 10, 'why' FROM failed",
        [message_id, state],
    )


def confirm(connection: Connection, message_id: str) -> None:
    """Settle a message as the relay would."""
    connection.execute(
        "WITH done AS (DELETE FROM outbox.ready WHERE id IN"
        " (SELECT id FROM outbox.message WHERE message_id = %s) RETURNING id, slot)"
        " INSERT INTO outbox.receipt (slot, span, ids)"
        " SELECT slot, int8range(id, id, '[]'), ARRAY[id] FROM done",
        [message_id],
    )


def lease(connection: Connection, message_id: str) -> None:
    """Claim a message as the relay would."""
    connection.execute(
        "UPDATE outbox.ready SET claim_id = 1, lease_until = now() + interval '1 hour' WHERE id IN"
        " (SELECT id FROM outbox.message WHERE message_id = %s)",
        [message_id],
    )


class TestEnqueue:
    """A Celery task from SQL."""

    def test_it_is_a_message_of_celerys_second_protocol(self, session: Connection) -> None:
        """Headers, properties, body and declaration as Celery's own JSON messages have them."""
        task_id = value(
            session, "SELECT outbox.enqueue('shop.bill', '[42]', '{\"a\": null}', 'bills')"
        )
        row = session.execute(
            "SELECT task, routing_key, headers, properties, convert_from(body, 'UTF8'),"
            " content_type, content_encoding, declare, available_at"
            " FROM outbox.message WHERE message_id = %s",
            [task_id],
        ).fetchone()
        assert row is not None
        task, key, headers, properties, body, kind, encoding, declare, available_at = row

        assert (task, key, kind, encoding) == ("shop.bill", "bills", "application/json", "utf-8")
        assert (headers["task"], headers["id"], headers["root_id"]) == (task, task_id, task_id)
        assert headers["timelimit"] == [None, None]
        assert properties == {"delivery_mode": 2, "correlation_id": task_id}
        embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        assert json.loads(body) == [[42], {"a": None}, embed]
        assert [(entity["kind"], entity["name"]) for entity in declare] == [("queue", "bills")]
        assert available_at is None

    def test_an_eta_is_held_and_told(self, session: Connection, emptied_database: str) -> None:
        """Both here, and to the worker in the header."""
        value(session, "SELECT outbox.enqueue('t', eta => '2100-01-02 03:04:05.678+01')")

        assert states(emptied_database)["scheduled"] == 1
        eta = value(session, "SELECT headers ->> 'eta' FROM outbox.message")
        assert eta == "2100-01-02T02:04:05.678000+00:00"

    def test_the_id_may_be_the_callers(self, session: Connection) -> None:
        """For those who must know it beforehand."""
        assert value(session, "SELECT outbox.enqueue('t', task_id => 'mine')") == "mine"
        assert value(session, "SELECT outbox.enqueue('t', priority => 9)") != "mine"

    @pytest.mark.parametrize(
        "arguments",
        [
            "NULL",
            "''",
            "'two words'",
            "'t', '{}'",
            "'t', 'null'",
            "'t', NULL",
            "'t', '[]', '[]'",
            "'t', '[]', NULL",
            "'t', queue => ''",
            "'t', queue => NULL",
            "'t', priority => 256",
            "'t', priority => -1",
        ],
    )
    def test_a_wrong_argument_is_explained(self, session: Connection, arguments: str) -> None:
        """By name, and nothing is stored."""
        with pytest.raises(errors.InvalidParameterValue, match="enqueue: "):
            session.execute(f"SELECT outbox.enqueue({arguments})".encode())

        assert value(session, "SELECT count(*) FROM outbox.message") == 0

    def test_the_default_queue_is_chosen_once_for_the_schema(self, session: Connection) -> None:
        """In the place of the app's task_default_queue, which SQL cannot see."""
        where = "SELECT routing_key, declare -> 0 ->> 'name' FROM outbox.message"
        with session.transaction(force_rollback=True):
            session.execute("SELECT outbox.set_default_queue('shop')")
            session.execute("SELECT outbox.enqueue('t')")
            assert session.execute(where).fetchall() == [("shop", "shop")]
            with (
                pytest.raises(errors.InvalidParameterValue) as refused,
                session.transaction(),
            ):
                session.execute("SELECT outbox.enqueue('t', queue => NULL)")
            assert refused.value.diag.message_hint == "Leave queue out to use 'shop'."
            session.execute("SELECT outbox.set_default_queue('other')")
            assert value(session, "SELECT outbox.default_queue()") == "other"

        session.execute("SELECT outbox.enqueue('t')")
        assert session.execute(where).fetchall() == [("celery", "celery")]

    @pytest.mark.parametrize("queue", ["", None, "q" * 256])
    def test_a_default_queue_has_a_name(self, session: Connection, queue: str | None) -> None:
        """Otherwise every task that names none would be refused."""
        with pytest.raises(errors.InvalidParameterValue, match="1 to 255 bytes"):
            session.execute("SELECT outbox.set_default_queue(%s)", [queue])

    def test_it_works_in_a_trigger_and_rolls_back_with_it(self, session: Connection) -> None:
        """In the caller's transaction, whatever its search_path."""
        with session.transaction(force_rollback=True):
            session.execute("SET LOCAL search_path = pg_catalog")
            session.execute("SELECT outbox.enqueue('t')")

        assert value(session, "SELECT count(*) FROM outbox.message") == 0


class TestSteering:
    """dead -> pending, dead or pending -> gone, sent -> pending."""

    def test_retrying_gives_fresh_attempts(
        self, session: Connection, emptied_database: str
    ) -> None:
        """Only what is dead, and once."""
        dead, waiting = commit_rows(emptied_database, 2)
        give_up(session, dead)

        assert value(session, "SELECT outbox.retry(%s)", dead) == 1
        assert value(session, "SELECT outbox.retry(%s)", dead) == 0
        assert value(session, "SELECT outbox.retry(%s)", waiting) == 0
        assert value(session, "SELECT outbox.retry('unknown')") == 0

        assert ids_in(emptied_database, "pending") == {dead, waiting}
        assert value(session, "SELECT max(attempts) FROM outbox.ready") == 0

    @pytest.mark.parametrize("state", ["dead", "retry", "scheduled", "new"])
    def test_discarding_deletes(
        self, session: Connection, emptied_database: str, state: str
    ) -> None:
        """Whatever is not sent and not on its way."""
        goner, other = commit_rows(emptied_database, 2)
        if state != "new":
            give_up(session, goner, state)

        assert value(session, "SELECT outbox.discard(%s)", goner) == 1

        assert value(session, "SELECT count(*) FROM outbox.message") == 1
        assert ids_in(emptied_database, "pending") == {other}

    def test_what_is_on_its_way_or_sent_is_not_discarded(
        self, session: Connection, emptied_database: str
    ) -> None:
        """A broker may have it already."""
        claimed, sent = commit_rows(emptied_database, 2)
        lease(session, claimed)
        confirm(session, sent)

        assert value(session, "SELECT outbox.discard(%s)", claimed) == 0
        assert value(session, "SELECT outbox.discard(%s)", sent) == 0
        assert value(session, "SELECT outbox.cancel(%s)", claimed) is False
        assert value(session, "SELECT outbox.cancel(%s)", sent) is False
        assert value(session, "SELECT count(*) FROM outbox.message") == 2

    def test_cancelling_is_part_of_the_transaction(
        self, session: Connection, emptied_database: str
    ) -> None:
        """Rolled back, the message is pending again; committed, it is gone."""
        (message_id,) = commit_rows(emptied_database)
        with session.transaction(force_rollback=True):
            assert value(session, "SELECT outbox.cancel(%s)", message_id) is True
        assert states(emptied_database)["pending"] == 1

        assert value(session, "SELECT outbox.cancel(%s)", message_id) is True
        assert value(session, "SELECT outbox.cancel(%s)", message_id) is False
        assert value(session, "SELECT count(*) FROM outbox.message") == 0

    def test_the_dead_are_not_cancelled(self, session: Connection, emptied_database: str) -> None:
        """They are an operator's business, not the producer's."""
        (message_id,) = commit_rows(emptied_database)
        give_up(session, message_id)

        assert value(session, "SELECT outbox.cancel(%s)", message_id) is False

    def test_replaying_makes_the_sent_pending_again(
        self, session: Connection, emptied_database: str
    ) -> None:
        """With the ids they had; by task and by time of confirmation; nothing else is touched."""
        (bill,) = commit_rows(emptied_database, task="bill")
        (mail,) = commit_rows(emptied_database, task="mail")
        dead, waiting = commit_rows(emptied_database, 2)
        for message_id in (bill, mail):
            confirm(session, message_id)
        give_up(session, dead)

        assert value(session, "SELECT outbox.replay('epoch', '2000-01-01')") == 0
        assert value(session, "SELECT outbox.replay('epoch', task => 'bill')") == 1
        assert ids_in(emptied_database, "sent") == {mail}
        assert ids_in(emptied_database, "pending") == {bill, waiting}
        assert value(session, "SELECT outbox.replay('epoch')") == 1
        assert value(session, "SELECT outbox.replay('epoch')") == 0
        assert ids_in(emptied_database, "dead") == {dead}

    def test_one_message_is_replayed(self, session: Connection, emptied_database: str) -> None:
        """Whatever it is in the middle of stays as it is; what was never confirmed is not sent."""
        sent, dead, waiting, forgotten, lost = commit_rows(emptied_database, 5)
        confirm(session, sent)
        give_up(session, dead)
        session.execute(
            "DELETE FROM outbox.ready WHERE id IN"
            " (SELECT id FROM outbox.message WHERE message_id = ANY (%s))",
            [[forgotten, lost]],
        )
        session.execute(
            "UPDATE outbox.message SET created_at = now() - interval '9 days'"
            " WHERE message_id = %s",
            [forgotten],
        )
        session.execute("SELECT outbox.purge('10 days')")
        session.execute(
            "UPDATE outbox.progress SET at = now() - interval '8 days' WHERE id IS NULL"
        )

        replayed = {
            each: value(session, "SELECT outbox.replay_message(%s)", each)
            for each in (sent, dead, waiting, forgotten, lost, "nobody")
        }

        assert replayed == {sent: 1, dead: 0, waiting: 0, forgotten: 1, lost: 0, "nobody": 0}
        assert {sent, waiting, forgotten} <= ids_in(emptied_database, "pending")
        assert value(session, "SELECT outbox.replay_message(%s)", sent) == 0
