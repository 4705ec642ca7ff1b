"""Ordering keys on a real Postgres: one message of a key at a time, in order, none forgotten."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from outbox_relay.core.claim import Claim, LaneClaim, Turn
from outbox_relay.core.message import Message, Parking
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows, ids_in, insert_rows, states

TERM = 60.0
OpenStore = Callable[[], "Relay"]


class Relay:
    """What a relay does with its store, step by step."""

    def __init__(self, url: str, number: int) -> None:
        self.store = Store.connect(url, "outbox", statement_timeout=5)
        self.lease = number * 1000
        self.held: dict[int, Message] = {}

    def claim(self, *, term: float = TERM, most: int = 100) -> list[str]:
        """Claim from lanes, then everything else; the message ids, oldest first."""
        self.lease += 1
        answer = self.store.round_trip(None, Turn([], 0, 100, self.lease, term, LaneClaim(0, most)))
        leased = answer.heads + answer.rows
        if not leased:
            return []
        claim = self.store.round_trip(Claim(leased, self.lease, 0.0), None).fetched
        assert claim is not None
        self.held |= {message.id: message for message in claim.messages}
        return [message.message_id for message in claim.messages]

    def confirm(self) -> None:
        """Settle all that is held."""
        self.store.round_trip(None, Turn(list(self.held.values()), 0, 0, 0, TERM))
        self.held = {}

    def refuse(self, state: str = "retry", delay: float = 0.0) -> None:
        """Park all that is held."""
        self.store.park([Parking(m, state, 1, 0, delay, "why") for m in self.held.values()])
        self.held = {}

    def give_back(self) -> None:
        """Release all that is held."""
        self.store.release([m.held for m in self.held.values()])
        self.held = {}


@pytest.fixture
def open_relay(emptied_database: str) -> Iterator[OpenStore]:
    """Relays on the test's database, as many as are wanted."""
    opened: list[Relay] = []

    def connect() -> Relay:
        opened.append(Relay(emptied_database, len(opened) + 1))
        return opened[-1]

    yield connect
    for relay in opened:
        relay.store.close()


@pytest.fixture
def relay(open_relay: OpenStore) -> Relay:
    """One relay."""
    return open_relay()


def drained(relay: Relay) -> list[str]:
    """Everything the relay publishes until nothing is due."""
    published: list[str] = []
    while claimed := relay.claim():
        published += claimed
        relay.confirm()
    return published


class TestOrder:
    """Which message of a key is next, and when."""

    def test_one_at_a_time_and_in_order(self, emptied_database: str, relay: Relay) -> None:
        """The next one is claimed when the one before is confirmed; other keys do not wait."""
        first, second = commit_rows(emptied_database, 2, ordering_key="a")
        (other,) = commit_rows(emptied_database, ordering_key="b")
        (free,) = commit_rows(emptied_database)

        assert relay.claim() == [first, other, free]
        assert relay.claim() == []
        relay.confirm()
        assert relay.claim() == [second]
        relay.confirm()
        assert relay.claim() == []
        assert states(emptied_database)["sent"] == 4

    def test_no_other_relay_takes_the_next(
        self, emptied_database: str, open_relay: OpenStore
    ) -> None:
        """Whoever holds the first one: its lane is taken."""
        ids = commit_rows(emptied_database, 3, ordering_key="a")
        one, another = open_relay(), open_relay()

        assert one.claim() == ids[:1]
        assert another.claim() == []
        one.confirm()
        assert another.claim() == ids[1:2]
        assert one.claim() == []

    def test_an_early_id_that_commits_late_goes_next(
        self, emptied_database: str, relay: Relay
    ) -> None:
        """Overlapping writers of one key: in the order of their ids as far as those are visible."""
        with psycopg.connect(emptied_database) as slow:
            (early,) = insert_rows(slow, ordering_key="a")
            first, last = commit_rows(emptied_database, 2, ordering_key="a")
            assert relay.claim() == [first]
            slow.commit()
        relay.confirm()

        assert drained(relay) == [early, last]

    def test_scheduled_messages_take_their_place_when_due(
        self, emptied_database: str, relay: Relay
    ) -> None:
        """Until then they hold up nobody; after it they are as old as they are."""
        (scheduled,) = commit_rows(emptied_database, ordering_key="a", available_in=3600)
        first, second = commit_rows(emptied_database, 2, ordering_key="a")
        assert states(emptied_database)["scheduled"] == 1
        assert relay.claim() == [first]
        with psycopg.connect(emptied_database) as connection:
            connection.execute("UPDATE outbox.parked SET available_at = now()")
        assert relay.store.promote(1000) == 1
        assert relay.claim() == []
        relay.confirm()

        assert drained(relay) == [scheduled, second]

    def test_replayed_messages_are_in_order_again(
        self, emptied_database: str, relay: Relay
    ) -> None:
        """Sent once more, one after another."""
        ids = commit_rows(emptied_database, 3, ordering_key="a")
        assert drained(relay) == ids
        with psycopg.connect(emptied_database) as connection:
            row = connection.execute("SELECT outbox.replay('-infinity', now())").fetchone()
        assert row == (3,)

        assert relay.claim() == ids[:1]
        relay.confirm()
        assert drained(relay) == ids[1:]


class TestFailures:
    """What becomes of a lane when something becomes of its first message."""

    def test_one_that_is_tried_again_keeps_its_lane(
        self, emptied_database: str, relay: Relay
    ) -> None:
        """Refused, waiting, tried again: nothing overtakes it."""
        first, second = commit_rows(emptied_database, 2, ordering_key="a")
        assert relay.claim() == [first]
        relay.refuse(delay=3600)
        assert relay.claim() == []
        with psycopg.connect(emptied_database) as connection:
            connection.execute("UPDATE outbox.parked SET available_at = now()")
        relay.store.promote(1000)

        assert drained(relay) == [first, second]

    def test_a_dead_one_lets_the_others_pass(self, emptied_database: str, relay: Relay) -> None:
        """A bad row never holds up a good one; revived, it takes its place again."""
        first, second, third = commit_rows(emptied_database, 3, ordering_key="a")
        assert relay.claim() == [first]
        relay.refuse("dead")
        assert relay.claim() == [second]
        with psycopg.connect(emptied_database) as connection:
            connection.execute("SELECT outbox.retry(%s)", [first])
        assert relay.claim() == []
        relay.confirm()

        assert drained(relay) == [first, third]

    def test_what_is_given_back_is_still_first(
        self, emptied_database: str, open_relay: OpenStore
    ) -> None:
        """After an outage, by whichever relay."""
        ids = commit_rows(emptied_database, 3, ordering_key="a")
        one, another = open_relay(), open_relay()
        assert one.claim() == ids[:1]
        one.give_back()

        assert drained(another) == ids

    def test_a_dead_relays_message_is_still_first(
        self, emptied_database: str, open_relay: OpenStore
    ) -> None:
        """Its claim runs out, and another relay publishes it before those behind it."""
        ids = commit_rows(emptied_database, 3, ordering_key="a")
        one, another = open_relay(), open_relay()
        assert one.claim(term=0.0) == ids[:1]

        assert drained(another) == ids

    @pytest.mark.parametrize("function", ["discard", "cancel"])
    def test_taking_back_the_first_lets_the_next_go(
        self, emptied_database: str, relay: Relay, function: str
    ) -> None:
        """One that waits leaves no gap either."""
        first, second, third = commit_rows(emptied_database, 3, ordering_key="a")
        assert relay.claim() == [first]
        relay.give_back()
        with psycopg.connect(emptied_database) as connection:
            for message_id in (first, second):
                connection.execute(f"SELECT outbox.{function}(%s)".encode(), [message_id])

        assert drained(relay) == [third]
        assert ids_in(emptied_database, "sent") == {third}

    def test_one_being_cancelled_is_waited_for(self, emptied_database: str, relay: Relay) -> None:
        """The transaction may yet roll back: nothing overtakes, and nobody blocks."""
        first, second = commit_rows(emptied_database, 2, ordering_key="a")
        (other,) = commit_rows(emptied_database, ordering_key="b")
        with psycopg.connect(emptied_database) as undecided:
            undecided.execute("SELECT outbox.cancel(%s)", [first])
            assert drained(relay) == [other]
            undecided.rollback()

        assert drained(relay) == [first, second]

    @pytest.mark.parametrize("table", ["ready", "parked"])
    def test_work_deleted_by_hand_frees_its_lane(
        self, emptied_database: str, relay: Relay, table: str
    ) -> None:
        """However it went."""
        first, second = commit_rows(emptied_database, 2, ordering_key="a")
        assert relay.claim() == [first]
        if table == "parked":
            relay.refuse(delay=3600)
        with psycopg.connect(emptied_database) as connection:
            connection.execute(f"DELETE FROM outbox.{table}".encode())

        assert relay.claim() == [second]


class TestLookingAround:
    """Those who look at the outbox see what waits in lanes."""

    def test_waiting_messages_are_pending(self, emptied_database: str, relay: Relay) -> None:
        """In the views and in the counts, and a drain is not done while there are any."""
        ids = commit_rows(emptied_database, 3, ordering_key="a")
        relay.claim()

        assert ids_in(emptied_database, "pending") == set(ids)
        assert states(emptied_database) == {"pending": 3, "scheduled": 0, "sent": 0, "dead": 0}
        relay.held = {}
        assert relay.store.anything_left()

    def test_retention_forgets_none_of_them(self, emptied_database: str, relay: Relay) -> None:
        """Neither when single rows go nor when a whole slot does."""
        ids = commit_rows(emptied_database, 3, ordering_key="a")
        with psycopg.connect(emptied_database) as connection:
            connection.execute("UPDATE outbox.message SET created_at = now() - interval '30 days'")
            connection.execute("SELECT outbox.purge('7 days', true)")
            for table in ("message", "lane"):
                connection.execute(f"UPDATE outbox.{table} SET slot = (slot + 15) % 16".encode())
            connection.execute("SELECT outbox.purge('7 days')")

        assert drained(relay) == ids

    def test_keys_are_neither_empty_nor_long(self, emptied_database: str) -> None:
        """200 bytes, for an index's sake."""
        commit_rows(emptied_database, ordering_key="é" * 100)
        for key in ("", "é" * 100 + "e"):
            with pytest.raises(psycopg.errors.CheckViolation, match="ordering_key_is_short"):
                commit_rows(emptied_database, ordering_key=key)


def test_a_long_lane_is_not_read_through(emptied_database: str, relay: Relay) -> None:
    """Finding the next one of twenty thousand is a look-up, in every table."""
    commit_rows(emptied_database, 20_000, ordering_key="a")
    relay.claim(most=20_000)
    relay.confirm()
    connection = relay.store._connection
    with connection.transaction():
        row = connection.execute("SELECT ids FROM outbox.claim_lanes(0, 100, 1, 60)").fetchone()
        read = connection.execute(
            "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"
            " WHERE schemaname = 'outbox' AND relname NOT LIKE 'pg%'"
        ).fetchone()

    assert row is not None
    assert len(row[0]) == 1
    assert read is not None
    assert read[0] < 20


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_each_key_is_in_order(
    emptied_database: str, open_relay: OpenStore, seed: int
) -> None:
    """Two relays, refusals, give-backs and claims that run out: never two of a key at once."""
    chance = random.Random(seed)
    relays = [open_relay(), open_relay()]
    keys = ["a", "b", "c"]
    order: dict[str, list[str]] = {key: [] for key in keys}
    key_of: dict[str, str] = {}
    seen: dict[str, list[str]] = {key: [] for key in keys}

    def publish(claimed: list[str]) -> None:
        for message_id in claimed:
            published = seen[key_of[message_id]]
            if published[-1:] != [message_id]:
                published.append(message_id)

    for _ in range(60):
        relay = chance.choice(relays)
        what = chance.choice(["send", "claim", "claim", "confirm", "refuse", "give back", "die"])
        if what == "send":
            key = chance.choice(keys)
            ids = commit_rows(emptied_database, chance.randint(1, 4), ordering_key=key)
            order[key] += ids
            key_of |= dict.fromkeys(ids, key)
        elif what == "claim":
            publish(relay.claim())
        elif what == "confirm":
            relay.confirm()
        elif what == "refuse":
            relay.refuse()
        elif what == "give back":
            relay.give_back()
        else:
            relay.confirm()
            publish(relay.claim(term=0.0))
            relay.held = {}
        relay.store.promote(1000)
        assert most_at_work(emptied_database) <= 1
    for relay in relays:
        relay.give_back()
    publish(drained(relays[0]))

    assert seen == order
    assert states(emptied_database)["sent"] == len(key_of)


def most_at_work(url: str) -> int:
    """How many messages the key with most of them has outside its lane."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT coalesce(max(count), 0) FROM (SELECT count(*) FROM ("
            " SELECT lane FROM outbox.ready UNION ALL SELECT lane FROM outbox.parked"
            " WHERE state = 'retry') work GROUP BY lane) counts"
        ).fetchone()
    assert row is not None
    found: Any = row[0]
    return int(found)
