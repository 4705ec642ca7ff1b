"""What the broker refused leaves the hot table, and comes back when it is due."""

import psycopg

from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows, states
from tests.relay.postgres.steps import OVER, TERM, OpenStore, claim, parked


def test_a_dead_message_keeps_its_reason(emptied_database: str, store: Store) -> None:
    """Cut to a length, without characters a text cannot hold."""
    commit_rows(emptied_database)
    (message,) = claim(store)

    store.park([parked(message, "dead", attempts=3, error="a\0b" + "x" * 5000)])

    with psycopg.connect(emptied_database) as connection:
        row = connection.execute("SELECT attempts, last_error FROM outbox.dead").fetchone()
    assert row == (3, "ab" + "x" * 998)


def test_a_reason_may_be_any_text(emptied_database: str, store: Store) -> None:
    """Also one that no database can store as it is."""
    commit_rows(emptied_database)
    (message,) = claim(store)

    store.park([parked(message, "dead", error="odd \ud800 name")])

    assert states(emptied_database)["dead"] == 1


def test_what_is_parked_already_is_parked_once(emptied_database: str, store: Store) -> None:
    """Work that somebody has made twice by hand: no refusal of it stops the relay."""
    commit_rows(emptied_database)
    (message,) = claim(store)
    with psycopg.connect(emptied_database) as connection:
        connection.execute(
            "INSERT INTO outbox.parked (id, slot, state, available_at)"
            " SELECT id, slot, 'dead', now() FROM outbox.message"
        )

    store.park([parked(message)])

    assert states(emptied_database) == {"pending": 0, "scheduled": 0, "sent": 0, "dead": 1}


def test_attempts_and_suspicion_survive_the_wait(emptied_database: str, store: Store) -> None:
    """What is known of a message is known again when it is claimed the next time."""
    commit_rows(emptied_database)
    (message,) = claim(store)
    store.park([parked(message, attempts=4, suspicion=1)])
    assert claim(store) == []

    assert store.promote(1000) == 1

    (again,) = claim(store)
    assert (again.id, again.attempts, again.suspicion) == (message.id, 4, 1)


def test_a_pause_is_kept(emptied_database: str, store: Store) -> None:
    """Before its time is come a refused message is pending, and not claimed."""
    commit_rows(emptied_database)
    store.park([parked(claim(store)[0], delay=3600.0)])

    assert store.promote(1000) == 0
    assert claim(store) == []
    assert states(emptied_database)["pending"] == 1


def test_the_dead_stay_dead(emptied_database: str, store: Store) -> None:
    """Only a person revives them."""
    commit_rows(emptied_database)
    store.park([parked(claim(store)[0], "dead")])

    assert store.promote(1000) == 0


def test_parking_is_fenced(emptied_database: str, open_store: OpenStore) -> None:
    """A relay whose claim is over cannot take the row from the one that holds it."""
    commit_rows(emptied_database)
    slow, other = open_store(), open_store()
    (late,) = claim(slow, number=1, term=OVER)
    (held,) = claim(other, number=2)

    slow.park([parked(late, "dead")])

    assert states(emptied_database)["dead"] == 0
    other.park([parked(held, "dead")])
    assert states(emptied_database)["dead"] == 1


def test_promotion_is_bounded(emptied_database: str, store: Store) -> None:
    """A thousand at a time, however many are due."""
    commit_rows(emptied_database, 1200, available_in=3600)
    with psycopg.connect(emptied_database) as connection:
        connection.execute("UPDATE outbox.parked SET available_at = now()")

    assert store.promote(1000) == 1000
    assert store.promote(1000) == 200
    assert store.promote(1000) == 0


def test_an_empty_list_is_no_trouble(store: Store) -> None:
    """Nothing to park, release or renew."""
    store.park([])
    store.release([])
    store.renew([], TERM)
