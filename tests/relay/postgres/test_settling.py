"""A confirm is final: it settles the message it was for, and no other."""

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from outbox_relay.core.claim import Turn
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows, commit_twin, ids_in, restored, states
from tests.relay.postgres.steps import OVER, TERM, OpenStore, claim, lease, parked, settle


def test_a_turn_may_have_nothing_to_do(store: Store) -> None:
    """Where all of a turn's room went to messages from lanes."""
    assert store.round_trip(None, Turn([], 0, 0, 1, TERM)).rows == []


def test_a_confirm_counts_although_its_claim_has_run_out(
    emptied_database: str, store: Store
) -> None:
    """Settled by the statement that claims, after an outage: not claimed once more."""
    commit_rows(emptied_database)
    (message,) = claim(store, term=OVER)

    answer = store.round_trip(None, Turn([message], 0, 100, 2, TERM))

    assert answer.rows == []
    assert states(emptied_database) == {"pending": 0, "scheduled": 0, "sent": 1, "dead": 0}


def test_confirmed_messages_are_sent(emptied_database: str, store: Store) -> None:
    """They show in `sent` with a time, and nowhere else."""
    commit_rows(emptied_database, 3)
    messages = claim(store)
    settle(store, messages[:2])

    assert states(emptied_database) == {"pending": 1, "scheduled": 0, "sent": 2, "dead": 0}
    with psycopg.connect(emptied_database) as connection:
        times = connection.execute("SELECT sent_at FROM outbox.sent").fetchall()
    assert all(time is not None for (time,) in times)


def test_a_confirm_counts_though_another_relay_holds_the_row(
    emptied_database: str, open_store: OpenStore
) -> None:
    """The broker has it: the second relay's claim changes nothing about that."""
    commit_rows(emptied_database)
    slow, other = open_store(), open_store()
    messages = claim(slow, number=1, term=OVER)
    (second,) = claim(other, number=2)

    assert settle(slow, messages) == [second.id]
    assert slow.settle_late(messages) == set()
    other.park([parked(second, "dead")])

    assert states(emptied_database)["sent"] == 1
    assert states(emptied_database)["dead"] == 0


@pytest.mark.parametrize("since", ["replayed", "came home"])
def test_a_late_confirm_takes_nothing_that_was_made_after_another_relays(
    emptied_database: str, open_store: OpenStore, since: str
) -> None:
    """A relay was frozen; another sent it, and it is to be sent again, or a dead letter."""
    (id_,) = commit_rows(emptied_database)
    frozen, other = open_store(), open_store()
    messages = claim(frozen, number=1, term=OVER)
    assert settle(other, claim(other, number=2)) == []
    with psycopg.connect(emptied_database) as connection:
        if since == "replayed":
            connection.execute("SELECT outbox.replay_message(%s)", (id_,))
        else:
            verdicts = connection.execute(
                "SELECT verdict FROM outbox.bring_home(ARRAY[%s], ARRAY['dead'], ARRAY['no'])",
                (id_,),
            ).fetchall()
            assert verdicts == [("home",)]

    assert settle(frozen, messages) == [messages[0].id]
    assert frozen.settle_late(messages) == set()

    assert ids_in(emptied_database, "pending" if since == "replayed" else "dead") == {id_}


@pytest.mark.parametrize("refused", [False, True], ids=["ready", "parked"])
def test_no_confirm_settles_another_message_with_that_id(
    emptied_database: str, store: Store, refused: bool
) -> None:
    """After a sequence or a snapshot was set back, ids are given again."""
    commit_rows(emptied_database)
    (lost,) = claim(store)
    with psycopg.connect(emptied_database) as connection:
        connection.execute("DELETE FROM outbox.message; DELETE FROM outbox.ready")
        connection.execute(
            "SELECT setval(pg_get_serial_sequence('outbox.message', 'id'), %s, false)",
            (lost.id,),
        )
    commit_rows(emptied_database)
    if refused:
        (new,) = claim(store, number=2)
        store.park([parked(new, delay=TERM)])

    assert settle(store, [lost]) == [lost.id]
    assert store.settle_late([lost]) == set()

    assert states(emptied_database) == {"pending": 1, "scheduled": 0, "sent": 0, "dead": 0}


@pytest.mark.parametrize("parked_again", [False, True], ids=["held", "parked"])
def test_a_late_confirm_settles_its_own_message_beside_one_with_its_id(
    emptied_database: str, store: Store, parked_again: bool
) -> None:
    """The other keeps its work, and the receipt is of the one that was confirmed."""
    (first,) = commit_rows(emptied_database)
    (lost,) = claim(store, number=1)
    if parked_again:
        store.park([parked(lost, delay=TERM)])
        twin = commit_twin(emptied_database, first)
    else:
        with psycopg.connect(emptied_database) as connection:
            connection.execute("UPDATE outbox.ready SET claim_id = 2")
        twin = commit_twin(emptied_database, first, available_in=TERM)

    assert settle(store, [lost]) == [lost.id]
    assert store.settle_late([lost]) == set()

    assert ids_in(emptied_database, "sent") == {first}
    assert ids_in(emptied_database, "scheduled" if not parked_again else "pending") == {twin}
    assert restored(emptied_database) == 0


def test_a_confirm_is_of_the_older_of_two_with_one_id(emptied_database: str, store: Store) -> None:
    """It is sent once: nobody takes it for one without a receipt, and makes it work again."""
    (first,) = commit_rows(emptied_database)
    twin = commit_twin(emptied_database, first, available_in=TERM)

    assert settle(store, claim(store)) == []

    assert ids_in(emptied_database, "sent") == {first}
    assert ids_in(emptied_database, "scheduled") == {twin}
    assert restored(emptied_database) == 0


def test_messages_of_two_slots_settled_together_are_both_sent(
    emptied_database: str, store: Store
) -> None:
    """Each slot has a receipt of its own."""
    commit_rows(emptied_database, 2)
    with psycopg.connect(emptied_database) as connection:
        for table in ("message", "ready"):
            connection.execute(
                SQL(
                    "UPDATE outbox.{0} SET slot = (slot + 1) % 16"
                    " WHERE id = (SELECT min(id) FROM outbox.{0})"
                ).format(Identifier(table))
            )

    assert settle(store, claim(store)) == []

    assert states(emptied_database) == {"pending": 0, "scheduled": 0, "sent": 2, "dead": 0}
    assert restored(emptied_database) == 0


def test_a_locked_row_holds_up_no_other(emptied_database: str, open_store: OpenStore) -> None:
    """Somebody's open transaction is waited for by nobody; in the end all is written down."""
    commit_rows(emptied_database, 4)
    store = open_store()
    kept, refused, *others = claim(store, term=TERM)
    with psycopg.connect(emptied_database) as somebody:
        somebody.execute(
            "SELECT FROM outbox.ready WHERE id IN (%s, %s) FOR UPDATE", (kept.id, refused.id)
        )

        assert settle(store, [kept, *others]) == [kept.id]
        assert store.settle_late([kept]) == {kept.id}
        assert store.park([parked(refused, "dead")]) == {refused.id}
        store.renew([kept.held, refused.held], TERM)
        store.release([refused.held])
        assert store.drop_orphans([refused.held]) == 0

    assert store.settle_late([kept]) == set()
    assert store.park([parked(refused, "dead")]) == set()
    assert states(emptied_database) == {"pending": 0, "scheduled": 0, "sent": 3, "dead": 1}


def test_settling_twice_is_settling_once(emptied_database: str, store: Store) -> None:
    """After an answer was lost the statement is repeated."""
    commit_rows(emptied_database)
    messages = claim(store)

    settle(store, messages)
    settle(store, messages)

    assert states(emptied_database)["sent"] == 1


def test_settling_nothing_leaves_no_receipt(emptied_database: str, store: Store) -> None:
    """An idle relay writes nothing."""
    lease(store)

    with psycopg.connect(emptied_database) as connection:
        assert connection.execute("SELECT count(*) FROM outbox.receipt").fetchone() == (0,)


def test_forgetting_deletes_only_what_is_settled(emptied_database: str, store: Store) -> None:
    """Retention 0: the confirmed message leaves, its neighbour in flight does not."""
    first, second = commit_rows(emptied_database, 2)
    messages = claim(store)
    settle(store, messages[:1])

    store.forget(messages)

    assert ids_in(emptied_database, "sent") == set()
    assert ids_in(emptied_database, "pending") == {second}
    assert first not in ids_in(emptied_database, "pending")
