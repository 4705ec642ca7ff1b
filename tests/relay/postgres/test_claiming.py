"""Who gets which rows, on a real Postgres; and an idle relay asks before it claims."""

import threading

import psycopg
from psycopg.sql import SQL, Identifier

from outbox_relay.core.claim import LaneClaim, Turn
from outbox_relay.core.message import Held
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows, insert_rows, states
from tests.relay.postgres.steps import OVER, TERM, OpenStore, claim, lease


def test_the_databases_own_isolation_is_of_no_consequence(
    database: str, open_store: OpenStore
) -> None:
    """Claims of two relays overlap in peace, also where transactions are serializable."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            SQL("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'").format(
                Identifier(admin.info.dbname)
            )
        )
    commit_rows(database, 2)
    one, another = open_store(), open_store()
    one.ask(None, Turn([], 0, 1, 1, TERM))
    another.ask(None, Turn([], 0, 1, 2, TERM))

    assert len(one.reply().rows) == len(another.reply().rows) == 1
    level = one._connection.execute("SHOW transaction_isolation").fetchone()
    assert level == ("read committed",)


def test_the_oldest_rows_come_first(emptied_database: str, store: Store) -> None:
    """A claim takes the lowest ids there are, and no more than its limit."""
    ids = commit_rows(emptied_database, 5)

    assert [m.message_id for m in claim(store, 3)] == ids[:3]
    assert [m.message_id for m in claim(store, 3)] == ids[3:]
    assert claim(store, 3) == []


def test_uncommitted_rows_are_invisible(emptied_database: str, store: Store) -> None:
    """Nothing is published of a transaction that may yet roll back."""
    with psycopg.connect(emptied_database) as connection:
        insert_rows(connection)
        assert claim(store) == []
        connection.rollback()
    assert claim(store) == []


def test_an_early_id_that_commits_late_is_found(emptied_database: str, store: Store) -> None:
    """Ids are handed out before transactions commit: the sweep from the head finds it."""
    with psycopg.connect(emptied_database) as slow:
        (early,) = insert_rows(slow)
        (late,) = commit_rows(emptied_database)
        (found,) = claim(store)
        assert found.message_id == late
        assert lease(store, 10, floor=found.id, number=2) == []
        slow.commit()

    assert lease(store, 10, floor=found.id, number=3) == []
    assert [m.message_id for m in claim(store)] == [early]


def test_a_claim_leaves_out_what_another_transaction_holds(
    emptied_database: str, store: Store
) -> None:
    """Relays never wait for one another's rows."""
    commit_rows(emptied_database, 2)
    with psycopg.connect(emptied_database) as other:
        other.execute("SELECT FROM outbox.ready ORDER BY id LIMIT 1 FOR UPDATE")

        assert len(claim(store)) == 1


def test_a_claim_that_is_over_may_be_made_by_another(
    emptied_database: str, open_store: OpenStore
) -> None:
    """What a relay that died had claimed is not lost."""
    commit_rows(emptied_database)
    (dead,) = claim(open_store(), number=1, term=OVER)

    (heir,) = claim(open_store(), number=2)

    assert heir.id == dead.id
    assert heir.claim_id == 2


def test_two_stores_never_lease_the_same_row(emptied_database: str, open_store: OpenStore) -> None:
    """Side by side, each row goes to exactly one, and none is left over."""
    commit_rows(emptied_database, 600)
    stores = [open_store() for _ in range(3)]
    start = threading.Barrier(len(stores))
    taken: list[list[int]] = [[] for _ in stores]

    def work(index: int) -> None:
        start.wait()
        number = 1000 * index
        while rows := lease(stores[index], 7, number=number):
            taken[index] += [row.id for row in rows]
            number += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    everything = [id_ for ids in taken for id_ in ids]
    assert len(everything) == len(set(everything))
    # SKIP LOCKED may leave the last rows to a relay that looks again.
    assert len(everything) + len(lease(stores[0], 600, number=9999)) == 600


def test_scheduled_rows_are_not_claimed_before_their_time(
    emptied_database: str, store: Store
) -> None:
    """An eta in the future is held, however often one looks."""
    commit_rows(emptied_database, available_in=3600)

    assert store.promote(1000) == 0
    assert claim(store) == []
    assert states(emptied_database)["scheduled"] == 1


def test_a_row_due_already_needs_no_promotion(emptied_database: str, store: Store) -> None:
    """An eta in the past is now."""
    commit_rows(emptied_database, available_in=-1)

    assert len(claim(store)) == 1


def above(floor: int, lanes: LaneClaim | None = None) -> Turn:
    """A turn that looks there."""
    return Turn([], floor, 10, 1, 10.0, lanes)


def test_a_probe_tells_what_a_claim_would_find(emptied_database: str, store: Store) -> None:
    """Rows above the floor that nobody has claimed, and no others."""
    assert not store.has_work(above(0))
    commit_rows(emptied_database, 2)

    assert store.has_work(above(0))
    leased = lease(store, 10)
    assert not store.has_work(above(0))
    store.release([Held(row.id, row.slot, 1) for row in leased])
    assert store.has_work(above(0))
    assert not store.has_work(above(max(row.id for row in leased)))


def test_news_of_a_lane_are_told_to_whom_would_look_there(
    emptied_database: str, store: Store
) -> None:
    """Above the last news seen; a turn that does not look into lanes finds nothing there."""
    commit_rows(emptied_database, ordering_key="k")
    with psycopg.connect(emptied_database) as connection:
        row = connection.execute("SELECT max(id) FROM outbox.lane_news").fetchone()
    assert row is not None

    assert not store.has_work(above(0))
    assert store.has_work(above(0, LaneClaim(0, 1)))
    assert not store.has_work(above(0, LaneClaim(row[0], 1)))
