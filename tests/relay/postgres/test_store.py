"""The outbox on a real Postgres: claims are exclusive, failures are fenced, confirms are final."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from math import isnan
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.sql import SQL, Identifier

from outbox_migrations import downgrade, grant, upgrade
from outbox_relay.core.backlog import History
from outbox_relay.core.claim import Claim, ClaimedRow, Fetched, LaneClaim, Turn
from outbox_relay.core.message import Held, Message, Parking
from outbox_relay.errors import SchemaError, SettingsError, StoreLost
from outbox_relay.postgres import store as store_module
from outbox_relay.postgres import waiting
from outbox_relay.postgres.store import Store
from servers import Postgres
from tests.fixtures.rows import commit_rows, commit_twin, ids_in, insert_rows, states
from tests.fixtures.waiting import wait_until
from tests.relay.messages import a_message

TERM = 60.0
#: A claim that is over as soon as it is made.
OVER = 0.0

OpenStore = Callable[[], Store]


@pytest.fixture
def open_store(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    """Connect a store to the test's database, as often as is wanted."""
    own = "database" in request.fixturenames
    database = request.getfixturevalue("database" if own else "emptied_database")
    opened: list[Store] = []

    def connect() -> Store:
        opened.append(Store.connect(database, "outbox", statement_timeout=5))
        return opened[-1]

    yield connect
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """One store."""
    return open_store()


def lease(
    store: Store, limit: int = 100, *, floor: int = 0, number: int = 1, term: float = TERM
) -> list[ClaimedRow]:
    """Claim rows above a floor, oldest first."""
    return sorted(store.round_trip(None, Turn([], floor, limit, number, term)).rows)


def fetch(
    store: Store, rows: list[ClaimedRow], number: int = 1, max_body: int | None = None
) -> Fetched:
    """The messages of claimed rows."""
    claim = store.round_trip(Claim(rows, number, 0.0, max_body), None).fetched
    assert claim is not None
    return claim


def claim(store: Store, limit: int = 100, *, number: int = 1, term: float = TERM) -> list[Message]:
    """Claim rows and fetch their messages."""
    return fetch(store, lease(store, limit, number=number, term=term), number).messages


def settle(store: Store, messages: list[Message]) -> list[int]:
    """Mark messages as confirmed; the ids of those that were not settled."""
    return store.round_trip(None, Turn(messages, 0, 0, 99, TERM)).unsettled


def parked(message: Message, state: str = "retry", **changes: Any) -> Parking:
    """A decision to park a message, due at once."""
    decision: dict[str, Any] = {"attempts": 1, "suspicion": 0, "delay": 0.0, "error": "why"}
    return Parking(message, state, **{**decision, **changes})


def test_of_many_routes_all_are_named_in_turn(
    store: Store, emptied_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long those that are named first have messages waiting."""
    monkeypatch.setattr(waiting, "MAX_ROUTES", 2)
    commit_rows(emptied_database, 6)
    store.park([parked(m, route=f"route {m.id % 5}", delay=60.0) for m in claim(store)])
    with psycopg.connect(emptied_database) as connection:
        rows = connection.execute("SELECT DISTINCT route FROM outbox.parked ORDER BY 1").fetchall()
    routes = [route for (route,) in rows]
    assert len(routes) == 5

    assert [store.waiting_routes() for _ in range(4)] == [
        routes[:2],
        routes[2:4],
        routes[4:],
        routes[:2],
    ]


class TestClaiming:
    """Who gets which rows."""

    def test_the_databases_own_isolation_is_of_no_consequence(
        self, database: str, open_store: OpenStore
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

    def test_the_oldest_rows_come_first(self, emptied_database: str, store: Store) -> None:
        """A claim takes the lowest ids there are, and no more than its limit."""
        ids = commit_rows(emptied_database, 5)

        assert [m.message_id for m in claim(store, 3)] == ids[:3]
        assert [m.message_id for m in claim(store, 3)] == ids[3:]
        assert claim(store, 3) == []

    def test_uncommitted_rows_are_invisible(self, emptied_database: str, store: Store) -> None:
        """Nothing is published of a transaction that may yet roll back."""
        with psycopg.connect(emptied_database) as connection:
            insert_rows(connection)
            assert claim(store) == []
            connection.rollback()
        assert claim(store) == []

    def test_an_early_id_that_commits_late_is_found(
        self, emptied_database: str, store: Store
    ) -> None:
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
        self, emptied_database: str, store: Store
    ) -> None:
        """Relays never wait for one another's rows."""
        commit_rows(emptied_database, 2)
        with psycopg.connect(emptied_database) as other:
            other.execute("SELECT FROM outbox.ready ORDER BY id LIMIT 1 FOR UPDATE")

            assert len(claim(store)) == 1

    def test_a_claim_that_is_over_may_be_made_by_another(
        self, emptied_database: str, open_store: OpenStore
    ) -> None:
        """What a relay that died had claimed is not lost."""
        commit_rows(emptied_database)
        (dead,) = claim(open_store(), number=1, term=OVER)

        (heir,) = claim(open_store(), number=2)

        assert heir.id == dead.id
        assert heir.claim_id == 2

    def test_two_stores_never_lease_the_same_row(
        self, emptied_database: str, open_store: OpenStore
    ) -> None:
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
        self, emptied_database: str, store: Store
    ) -> None:
        """An eta in the future is held, however often one looks."""
        commit_rows(emptied_database, available_in=3600)

        assert store.promote(1000) == 0
        assert claim(store) == []
        assert states(emptied_database)["scheduled"] == 1

    def test_a_row_due_already_needs_no_promotion(
        self, emptied_database: str, store: Store
    ) -> None:
        """An eta in the past is now."""
        commit_rows(emptied_database, available_in=-1)

        assert len(claim(store)) == 1


def above(floor: int, lanes: LaneClaim | None = None) -> Turn:
    """A turn that looks there."""
    return Turn([], floor, 10, 1, 10.0, lanes)


class TestProbing:
    """An idle relay asks before it claims."""

    def test_a_probe_tells_what_a_claim_would_find(
        self, emptied_database: str, store: Store
    ) -> None:
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
        self, emptied_database: str, store: Store
    ) -> None:
        """Above the last news seen; a turn that does not look into lanes finds nothing there."""
        commit_rows(emptied_database, ordering_key="k")
        with psycopg.connect(emptied_database) as connection:
            row = connection.execute("SELECT max(id) FROM outbox.lane_news").fetchone()
        assert row is not None

        assert not store.has_work(above(0))
        assert store.has_work(above(0, LaneClaim(0, 1)))
        assert not store.has_work(above(0, LaneClaim(row[0], 1)))


class TestFetching:
    """What goes on the wire."""

    def test_a_message_is_what_was_inserted(self, emptied_database: str, store: Store) -> None:
        """Every column, to the letter: spacing and order of the JSON included."""
        columns: dict[str, Any] = {
            "exchange": "events",
            "routing_key": "shop.order",
            "headers": '{"b":  1, "a": [null, "\\u00e9"], "b": 2}',
            "properties": '{"priority": 3 }',
            "body": bytes(range(256)),
            "content_type": "application/octet-stream",
            "content_encoding": "binary",
            "mandatory": False,
            "declare": '[{"kind": "exchange"}]',
        }
        (message_id,) = commit_rows(emptied_database, **columns)

        (message,) = claim(store)

        assert message.message_id == message_id
        as_bytes = {name: columns[name].encode() for name in ("headers", "properties")}
        assert {name: getattr(message, name) for name in columns} == columns | as_bytes
        assert (message.attempts, message.suspicion, message.expired) == (0, 0, False)

    def test_an_expired_message_says_so(self, emptied_database: str, store: Store) -> None:
        """By the database's clock."""
        commit_rows(emptied_database, expires_in=-1)
        commit_rows(emptied_database, expires_in=3600)

        assert [m.expired for m in claim(store)] == [True, False]

    def test_large_bodies_wait_for_room(
        self, emptied_database: str, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As many bodies as fit come at once, in order; the others are named to be given back."""
        monkeypatch.setattr(store_module, "SMALL", 100)
        monkeypatch.setattr(store_module, "MAX_FETCH_BYTES", 1300)
        ids = commit_rows(emptied_database, 5, body=b"x" * 400)

        found = fetch(store, leased := lease(store))

        assert [m.message_id for m in found.messages] == ids[:3]
        assert found.too_large == [Held(row.id, row.slot, 1) for row in leased[3:]]

    @pytest.mark.parametrize("column", ["headers", "properties", "declare"])
    def test_all_of_a_message_counts(
        self, emptied_database: str, store: Store, column: str
    ) -> None:
        """A whole batch of the largest headers or declarations takes no more than bodies may."""
        text = f'{{"x": "{"x" * 120_000}"}}'
        large = commit_rows(
            emptied_database, 300, **{column: f"[{text}]" if column == "declare" else text}
        )
        ids = commit_rows(emptied_database, 5)

        found = fetch(store, lease(store, 500))

        assert [m.message_id for m in found.messages][-5:] == ids
        assert [m.message_id for m in found.messages][:-5] == large[: len(found.messages) - 5]
        assert sum(m.size for m in found.messages) < store_module.MAX_FETCH_BYTES + (1 << 20)
        assert len(found.messages) + len(found.too_large) == 305
        as_text = found.messages[0]._asdict()[column]
        assert text in (as_text if column == "declare" else as_text.decode())

    def test_a_body_larger_than_all_room_comes_alone(
        self, emptied_database: str, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise it would never be sent."""
        monkeypatch.setattr(store_module, "SMALL", 100)
        monkeypatch.setattr(store_module, "MAX_FETCH_BYTES", 1000)
        ids = commit_rows(emptied_database, 2, body=b"x" * 5000)

        found = fetch(store, lease(store))

        assert [m.message_id for m in found.messages] == ids[:1]
        assert len(found.too_large) == 1

    def test_a_body_beyond_the_brokers_limit_is_not_fetched(
        self, emptied_database: str, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its size is all that is needed of it, and it takes no room from others."""
        monkeypatch.setattr(store_module, "SMALL", 100)
        monkeypatch.setattr(store_module, "MAX_FETCH_BYTES", 1000)
        (large,) = commit_rows(emptied_database, body=b"x" * 5000)
        ids = commit_rows(emptied_database, 2, body=b"x" * 400)

        found = fetch(store, lease(store), max_body=4000)

        assert [m.message_id for m in found.messages] == ids
        (beyond,) = found.oversized
        assert (beyond.message.message_id, beyond.size, beyond.limit) == (large, 5000, 4000)
        assert found.too_large == []

    def test_work_whose_message_was_deleted_is_dropped(
        self, emptied_database: str, store: Store
    ) -> None:
        """A DELETE by hand leaves no claim behind that would take up room for ever."""
        gone, kept = commit_rows(emptied_database, 2)
        with psycopg.connect(emptied_database) as connection:
            connection.execute("DELETE FROM outbox.message WHERE message_id = %s", [gone])

        found = fetch(store, lease(store))

        assert [m.message_id for m in found.messages] == [kept]
        assert len(found.orphans) == 1
        assert store.drop_orphans(found.orphans) == 1
        settle(store, found.messages)
        assert lease(store, number=2) == []

    def test_work_moved_to_another_slot_is_given_back(
        self, emptied_database: str, store: Store
    ) -> None:
        """Retention moved the message between claim and fetch: the next claim finds it."""
        (message_id,) = commit_rows(emptied_database)
        rows = lease(store)
        with psycopg.connect(emptied_database) as connection:
            connection.execute("UPDATE outbox.message SET slot = (slot + 1) % 16")
            connection.execute("UPDATE outbox.ready SET slot = (slot + 1) % 16")

        found = fetch(store, rows)

        assert found.messages == []
        assert store.drop_orphans(found.orphans) == 0
        assert [m.message_id for m in claim(store, number=2)] == [message_id]


class TestSettling:
    """A confirm is final."""

    def test_a_turn_may_have_nothing_to_do(self, store: Store) -> None:
        """Where all of a turn's room went to messages from lanes."""
        assert store.round_trip(None, Turn([], 0, 0, 1, TERM)).rows == []

    def test_a_confirm_counts_although_its_claim_has_run_out(
        self, emptied_database: str, store: Store
    ) -> None:
        """Settled by the statement that claims, after an outage: not claimed once more."""
        commit_rows(emptied_database)
        (message,) = claim(store, term=OVER)

        answer = store.round_trip(None, Turn([message], 0, 100, 2, TERM))

        assert answer.rows == []
        assert states(emptied_database) == {"pending": 0, "scheduled": 0, "sent": 1, "dead": 0}

    def test_confirmed_messages_are_sent(self, emptied_database: str, store: Store) -> None:
        """They show in `sent` with a time, and nowhere else."""
        commit_rows(emptied_database, 3)
        messages = claim(store)
        settle(store, messages[:2])

        assert states(emptied_database) == {"pending": 1, "scheduled": 0, "sent": 2, "dead": 0}
        with psycopg.connect(emptied_database) as connection:
            times = connection.execute("SELECT sent_at FROM outbox.sent").fetchall()
        assert all(time is not None for (time,) in times)

    def test_a_confirm_counts_though_another_relay_holds_the_row(
        self, emptied_database: str, open_store: OpenStore
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
        self, emptied_database: str, open_store: OpenStore, since: str
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
        self, emptied_database: str, store: Store, refused: bool
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
        self, emptied_database: str, store: Store, parked_again: bool
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
        assert store.restore_work() == 0

    def test_a_confirm_is_of_the_older_of_two_with_one_id(
        self, emptied_database: str, store: Store
    ) -> None:
        """It is sent once: nobody takes it for one without a receipt, and makes it work again."""
        (first,) = commit_rows(emptied_database)
        twin = commit_twin(emptied_database, first, available_in=TERM)

        assert settle(store, claim(store)) == []

        assert ids_in(emptied_database, "sent") == {first}
        assert ids_in(emptied_database, "scheduled") == {twin}
        assert store.restore_work() == 0

    def test_messages_of_two_slots_settled_together_are_both_sent(
        self, emptied_database: str, store: Store
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
        assert store.restore_work() == 0

    def test_a_locked_row_holds_up_no_other(
        self, emptied_database: str, open_store: OpenStore
    ) -> None:
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

    def test_settling_twice_is_settling_once(self, emptied_database: str, store: Store) -> None:
        """After an answer was lost the statement is repeated."""
        commit_rows(emptied_database)
        messages = claim(store)

        settle(store, messages)
        settle(store, messages)

        assert states(emptied_database)["sent"] == 1

    def test_settling_nothing_leaves_no_receipt(self, emptied_database: str, store: Store) -> None:
        """An idle relay writes nothing."""
        lease(store)

        with psycopg.connect(emptied_database) as connection:
            assert connection.execute("SELECT count(*) FROM outbox.receipt").fetchone() == (0,)

    def test_forgetting_deletes_only_what_is_settled(
        self, emptied_database: str, store: Store
    ) -> None:
        """Retention 0: the confirmed message leaves, its neighbour in flight does not."""
        first, second = commit_rows(emptied_database, 2)
        messages = claim(store)
        settle(store, messages[:1])

        store.forget(messages)

        assert ids_in(emptied_database, "sent") == set()
        assert ids_in(emptied_database, "pending") == {second}
        assert first not in ids_in(emptied_database, "pending")


class TestParking:
    """What the broker refused leaves the hot table, and comes back when it is due."""

    def test_a_dead_message_keeps_its_reason(self, emptied_database: str, store: Store) -> None:
        """Cut to a length, without characters a text cannot hold."""
        commit_rows(emptied_database)
        (message,) = claim(store)

        store.park([parked(message, "dead", attempts=3, error="a\0b" + "x" * 5000)])

        with psycopg.connect(emptied_database) as connection:
            row = connection.execute("SELECT attempts, last_error FROM outbox.dead").fetchone()
        assert row == (3, "ab" + "x" * 998)

    def test_a_reason_may_be_any_text(self, emptied_database: str, store: Store) -> None:
        """Also one that no database can store as it is."""
        commit_rows(emptied_database)
        (message,) = claim(store)

        store.park([parked(message, "dead", error="odd \ud800 name")])

        assert states(emptied_database)["dead"] == 1

    def test_what_is_parked_already_is_parked_once(
        self, emptied_database: str, store: Store
    ) -> None:
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

    def test_attempts_and_suspicion_survive_the_wait(
        self, emptied_database: str, store: Store
    ) -> None:
        """What is known of a message is known again when it is claimed the next time."""
        commit_rows(emptied_database)
        (message,) = claim(store)
        store.park([parked(message, attempts=4, suspicion=1)])
        assert claim(store) == []

        assert store.promote(1000) == 1

        (again,) = claim(store)
        assert (again.id, again.attempts, again.suspicion) == (message.id, 4, 1)

    def test_a_pause_is_kept(self, emptied_database: str, store: Store) -> None:
        """Before its time is come a refused message is pending, and not claimed."""
        commit_rows(emptied_database)
        store.park([parked(claim(store)[0], delay=3600.0)])

        assert store.promote(1000) == 0
        assert claim(store) == []
        assert states(emptied_database)["pending"] == 1

    def test_the_dead_stay_dead(self, emptied_database: str, store: Store) -> None:
        """Only a person revives them."""
        commit_rows(emptied_database)
        store.park([parked(claim(store)[0], "dead")])

        assert store.promote(1000) == 0

    def test_parking_is_fenced(self, emptied_database: str, open_store: OpenStore) -> None:
        """A relay whose claim is over cannot take the row from the one that holds it."""
        commit_rows(emptied_database)
        slow, other = open_store(), open_store()
        (late,) = claim(slow, number=1, term=OVER)
        (held,) = claim(other, number=2)

        slow.park([parked(late, "dead")])

        assert states(emptied_database)["dead"] == 0
        other.park([parked(held, "dead")])
        assert states(emptied_database)["dead"] == 1

    def test_promotion_is_bounded(self, emptied_database: str, store: Store) -> None:
        """A thousand at a time, however many are due."""
        commit_rows(emptied_database, 1200, available_in=3600)
        with psycopg.connect(emptied_database) as connection:
            connection.execute("UPDATE outbox.parked SET available_at = now()")

        assert store.promote(1000) == 1000
        assert store.promote(1000) == 200
        assert store.promote(1000) == 0

    def test_an_empty_list_is_no_trouble(self, store: Store) -> None:
        """Nothing to park, release or renew."""
        store.park([])
        store.release([])
        store.renew([], TERM)


class TestReleasing:
    """Claims are given back, and kept, by those who hold them."""

    def test_what_is_released_can_be_claimed_at_once(
        self, emptied_database: str, store: Store
    ) -> None:
        """No term has to pass, and no attempt is counted."""
        commit_rows(emptied_database)
        (message,) = claim(store, number=1)

        store.release([message.held])

        (again,) = claim(store, number=2)
        assert (again.attempts, again.suspicion) == (0, 0)

    def test_suspicion_adds_up(self, emptied_database: str, store: Store) -> None:
        """Each time a channel dies with it."""
        commit_rows(emptied_database)
        for number in (1, 2):
            (message,) = claim(store, number=number)
            store.release([message.held], suspicious=True)

        assert claim(store, number=3)[0].suspicion == 2

    def test_releasing_is_fenced(self, emptied_database: str, open_store: OpenStore) -> None:
        """A relay that was away cannot give back what another one holds."""
        commit_rows(emptied_database)
        slow, other = open_store(), open_store()
        (late,) = claim(slow, number=1, term=OVER)
        claim(other, number=2)

        slow.release([late.held], suspicious=True)

        assert claim(slow, number=3) == []

    def test_a_renewed_claim_is_not_over(
        self, emptied_database: str, open_store: OpenStore
    ) -> None:
        """What takes long is kept."""
        commit_rows(emptied_database)
        holder = open_store()
        (message,) = claim(holder, number=1, term=OVER)

        holder.renew([message.held], TERM)

        assert claim(open_store(), number=2) == []

    def test_renewing_is_fenced(self, emptied_database: str, open_store: OpenStore) -> None:
        """A claim that was lost cannot be prolonged for somebody else."""
        commit_rows(emptied_database)
        slow, other = open_store(), open_store()
        (late,) = claim(slow, number=1, term=OVER)
        claim(other, number=2, term=OVER)

        slow.renew([late.held], TERM)

        assert len(claim(other, number=3)) == 1


class TestLooking:
    """Counts, and whether anything is left to do."""

    def test_stats_count_the_states(self, emptied_database: str, store: Store) -> None:
        """Pending includes what waits for another attempt."""
        commit_rows(emptied_database, 4)
        commit_rows(emptied_database, 2, available_in=3600)
        first, second, third, _ = claim(store)
        store.park([parked(first, delay=60.0), parked(second, "dead")])
        settle(store, [third])

        stats = store.stats()

        assert (stats.pending, stats.scheduled, stats.dead) == (2, 2, 1)
        assert stats.oldest_pending_age >= 0

    def test_an_empty_outbox_has_no_lag(self, store: Store) -> None:
        """Nought, not null."""
        assert asdict(store.stats()) == {
            "pending": 0,
            "scheduled": 0,
            "dead": 0,
            "oldest_pending_age": 0.0,
        }

    def test_the_upkeep_follows_the_tables(self, database: str, store: Store) -> None:
        """Sizes in bytes, and dead rows as the server's own statistics count them."""
        with psycopg.connect(database) as owner:  # an earlier test may have left an empty page
            owner.execute("TRUNCATE outbox.ready, outbox.parked")
        assert store.upkeep().ready_bytes == 0

        commit_rows(database, 50)
        settle(store, claim(store))

        def dead() -> int:
            with psycopg.connect(database) as other:
                if other.info.server_version >= 150000:  # older ones tell within a second
                    other.execute("SELECT pg_stat_force_next_flush()")
            return store.upkeep().ready_dead_tuples

        wait_until(lambda: dead() >= 50, 10, "50 dead rows in the statistics")
        assert store.upkeep().ready_bytes > 0
        assert store.upkeep().parked_bytes == 0

    @pytest.mark.parametrize("level", list(IsolationLevel)[1:])
    def test_what_holds_the_horizon_is_noticed(
        self, database: str, store: Store, level: IsolationLevel
    ) -> None:
        """A transaction that still sees the past, whether it has written or not."""
        assert store.upkeep().horizon_age == 0
        with psycopg.connect(database) as idle:
            idle.isolation_level = level
            if level is IsolationLevel.READ_COMMITTED:
                insert_rows(idle)  # reading alone holds nothing between statements
            else:
                idle.execute("SELECT count(*) FROM outbox.pending")
            assert store.upkeep().horizon_age > 0
        wait_until(lambda: store.upkeep().horizon_age == 0, 10, "an end of it")

    def test_a_horizon_that_may_not_be_seen_is_unknown(
        self, database: str, postgres: Postgres
    ) -> None:
        """Not zero: nobody should believe that all is well."""
        grant(database)
        with psycopg.connect(database) as admin:
            admin.execute("DROP ROLE IF EXISTS blindfold")
            admin.execute("CREATE ROLE blindfold LOGIN PASSWORD 'p' IN ROLE outbox_relay")
        url = database.replace(f"postgres:{postgres.password}@", "blindfold:p@")
        store = Store.connect(url, "outbox", statement_timeout=5)
        try:
            assert isnan(store.upkeep().horizon_age)
            with psycopg.connect(database) as admin:
                admin.execute("GRANT pg_read_all_stats TO blindfold")
            assert not isnan(store.upkeep().horizon_age)
        finally:
            store.close()

    def test_what_is_due_is_left(self, emptied_database: str, store: Store) -> None:
        """Claimed, refused or overdue rows are; dead, sent and future ones are not."""
        commit_rows(emptied_database, available_in=3600)
        assert not store.anything_left()
        commit_rows(emptied_database, 2)
        first, second = claim(store)
        assert store.anything_left()

        store.park([parked(first, delay=60.0)])
        settle(store, [second])
        assert store.anything_left()

        store.promote(1000)
        with psycopg.connect(emptied_database) as connection:
            connection.execute("UPDATE outbox.parked SET state = 'dead' WHERE state = 'retry'")
        assert not store.anything_left()


class TestTrouble:
    """What goes wrong is told apart: waited out, or ended with a way out."""

    def test_a_terminated_session_is_transient(self, database: str, open_store: OpenStore) -> None:
        """The next connection works."""
        store = open_store()
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'outbox-relay'"
            )

        with pytest.raises(StoreLost):
            lease(store)
        assert lease(open_store()) == []

    def test_a_frozen_server_is_given_up(self, database: str, postgres: Postgres) -> None:
        """A backend that never answers does not hold the relay for ever, and is not used again."""
        store = Store.connect(database, "outbox", statement_timeout=0.1)
        with psycopg.connect(database) as admin:
            ((pid,),) = admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox-relay'"
            ).fetchall()

        with postgres.frozen(pid):
            with pytest.raises(StoreLost):
                lease(store)
            with pytest.raises(StoreLost):
                lease(store)
            store.close()

    def test_a_lock_held_too_long_is_transient(self, database: str) -> None:
        """Somebody's LOCK TABLE ends in a retry, not in a relay that waits."""
        store = Store.connect(database, "outbox", statement_timeout=0.1)
        with psycopg.connect(database) as other:
            other.execute("LOCK TABLE outbox.ready IN ACCESS EXCLUSIVE MODE")

            with pytest.raises(StoreLost):
                lease(store)
        store.close()

    def test_a_read_only_database_is_transient(self, database: str, open_store: OpenStore) -> None:
        """A standby that will be promoted, or a primary told to be careful: nothing is claimed."""
        commit_rows(database)
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute(
                "DO $$ BEGIN EXECUTE format("
                "'ALTER DATABASE %I SET default_transaction_read_only = on', current_database());"
                " END $$"
            )

        with pytest.raises(StoreLost):
            lease(open_store())

    def test_nobody_there_is_transient(self, database: str, postgres: Postgres) -> None:
        """A refused connection, an unknown database or a wrong password may all be corrected."""
        for url in (
            "postgresql://postgres@127.0.0.1:1/postgres",
            postgres.dsn("absent"),
            database.replace(postgres.password, "wrong"),
        ):
            with pytest.raises(StoreLost) as lost:
                Store.connect(url, "outbox", statement_timeout=5)
            assert postgres.password not in str(lost.value)

    @pytest.mark.parametrize(
        ("version", "way_out"), [(2, "upgrade the relay"), (0, "outbox-migrate up")]
    )
    def test_another_schema_version_is_refused(
        self, database: str, open_store: OpenStore, version: int, way_out: str
    ) -> None:
        """And it is said which side is behind."""
        with psycopg.connect(database) as admin:
            admin.execute(
                "CREATE OR REPLACE FUNCTION outbox.version() RETURNS integer LANGUAGE sql"
                f" IMMUTABLE AS 'SELECT {version}'"
            )

        with pytest.raises(SchemaError, match=way_out):
            open_store()

    def test_tables_made_anew_are_another_history(self, empty_database: str) -> None:
        """A dump that was restored gives new messages the ids of those that were lost."""

        def history() -> History:
            store = Store.connect(empty_database, "outbox", statement_timeout=5)
            store.close()
            return store.history

        upgrade(empty_database)
        before = history()
        assert history().continues(before)
        downgrade(empty_database)
        upgrade(empty_database)

        assert not history().continues(before)

    def test_a_database_that_was_set_back_is_another_history(self, store: Store) -> None:
        """A snapshot of its disk keeps the timeline, and has come less far."""
        seen = store.read_history()

        assert not replace(seen, position=seen.position - 1).continues(seen)
        assert store.read_history().continues(seen)

    def test_a_database_without_the_schema_is_refused(self, empty_database: str) -> None:
        """The message says how to make it."""
        with pytest.raises(SchemaError, match="outbox-migrate up"):
            Store.connect(empty_database, "outbox", statement_timeout=5)

    def test_another_schema_name_is_looked_for(self, database: str) -> None:
        """A wrong OUTBOX_SCHEMA is a missing schema, not somebody else's."""
        with pytest.raises(SchemaError, match="outbox-migrate up"):
            Store.connect(database, "elsewhere", statement_timeout=5)

    def test_a_table_that_vanishes_is_said_to_be_missing(self, database: str, store: Store) -> None:
        """Also in the middle of the work."""
        with psycopg.connect(database) as admin:
            admin.execute("DROP TABLE outbox.ready CASCADE")

        with pytest.raises(SchemaError, match="outbox-migrate up"):
            lease(store)

    def test_a_missing_right_is_said_to_be_missing(self, database: str, postgres: Postgres) -> None:
        """The message says whom to grant what."""
        with psycopg.connect(database) as admin:
            admin.execute("DROP ROLE IF EXISTS nobody_in_particular")
            admin.execute("CREATE ROLE nobody_in_particular LOGIN PASSWORD 'p'")
            admin.execute("GRANT USAGE ON SCHEMA outbox TO nobody_in_particular")
        url = database.replace(f"postgres:{postgres.password}@", "nobody_in_particular:p@")

        store = Store.connect(url, "outbox", statement_timeout=5)
        with pytest.raises(SchemaError, match="outbox-migrate grant"):
            lease(store)
        store.close()

    def test_a_malformed_url_names_its_variable(self) -> None:
        """Also where it came from a file that changed since the start."""
        with pytest.raises(SettingsError, match="OUTBOX_DATABASE_URL"):
            Store.connect("postgresql://[", "outbox", statement_timeout=5)

    def test_a_message_that_is_not_there_is_harmless(self, store: Store) -> None:
        """Settling or parking what was discarded meanwhile changes nothing."""
        settle(store, [a_message(id=12345)])
        store.park([parked(a_message(id=12345))])
        store.forget([a_message(id=12345)])
