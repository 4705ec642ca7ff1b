"""The model database does what Postgres does: the same calls leave the same tables."""

from dataclasses import dataclass
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox_relay.core.claim import RouteClaim, Turn
from outbox_relay.core.message import Held, Message, Parking
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import insert_rows
from tests.relay.messages import a_message
from tests.relay.model.database import ModelDatabase
from tests.relay.model.hub import Clock

#: Ends of leases and pauses: long over, or far away.
PAST, FUTURE = -1000.0, 1000.0
#: Names that have to be quoted in more than one way.
ROUTES = ("a\x1fb", 'x "\\{,\x1fnull')

rows = st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True)
leases = st.integers(1, 3)
terms = st.sampled_from([PAST, FUTURE])
pairs = st.lists(st.tuples(st.integers(1, 6), leases), min_size=1, max_size=3)
routes = st.sampled_from([None, *ROUTES])
operations = st.one_of(
    st.tuples(st.just("turn"), st.lists(st.integers(1, 6), max_size=2, unique=True),
              st.integers(0, 4), st.integers(0, 6), leases, terms),
    st.tuples(st.just("park"), rows, leases, st.sampled_from(["retry", "dead"]), terms, routes),
    st.tuples(st.just("claim_waiting"), st.integers(0, 3), st.integers(0, 3), leases, terms),
    st.tuples(st.just("release"), pairs, st.booleans()),
    st.tuples(st.just("renew"), pairs, terms),
    st.tuples(st.just("settle_late"), rows, st.booleans()),
    st.tuples(st.just("promote")),
)  # fmt: skip


def modelled(held: list[tuple[int, int]]) -> list[Held]:
    """The rows as the model knows them."""
    return [Held(row, 0, claim_id) for row, claim_id in held]


@dataclass
class Twins:
    """The same outbox twice; rows are named by the order in which they were inserted."""

    store: Store
    model: ModelDatabase
    first: int

    def message(self, row: int, claim_id: int) -> Message:
        """A row as Postgres knows it."""
        return a_message(id=self.first + row - 1, claim_id=claim_id)

    def do(self, name: str, *given: Any) -> tuple[object, object]:
        """Carry an operation out on both; what each returned, comparably."""
        return getattr(self, name)(*given)  # type: ignore[no-any-return]  # one of those below

    def turn(
        self, done: list[int], floor: int, limit: int, claim_id: int, term: float
    ) -> tuple[object, object]:
        """Settle and claim."""
        real = Turn(
            [self.message(row, claim_id) for row in done],
            floor + self.first - 1,
            limit,
            claim_id,
            term,
        )
        reply = self.store.round_trip(None, real)
        modelled, unsettled = self.model.turn(
            Turn(
                [a_message(id=row, claim_id=claim_id) for row in done], floor, limit, claim_id, term
            )
        )
        return (
            (
                sorted(
                    (row.id - self.first + 1, row.attempts, row.suspicion) for row in reply.rows
                ),
                sorted(id_ - self.first + 1 for id_ in reply.unsettled),
            ),
            ([(row.id, row.attempts, row.suspicion) for row in modelled], sorted(unsettled)),
        )

    def settle_late(self, rows: list[int], right: bool) -> tuple[object, object]:
        """Settle by the name of the message, or by one that is not its."""
        ids = dict.fromkeys(rows, "m" if right else "other")
        real = [
            self.message(row, 0)._replace(message_id=f"{name}{row}") for row, name in ids.items()
        ]
        modelled = [a_message(id=row, message_id=f"{name}{row}") for row, name in ids.items()]
        return self.store.settle_late(real), self.model.settle_late(modelled)

    def park(
        self, ids: list[int], claim_id: int, state: str, delay: float, route: str | None
    ) -> tuple[object, object]:
        """Refuse."""
        for target, first in ((self.store, self.first), (self.model, 1)):
            target.park(
                [
                    Parking(
                        a_message(id=first + row - 1, claim_id=claim_id),
                        state,
                        attempts=1,
                        suspicion=1,
                        delay=delay,
                        error="no",
                        route=None if state == "dead" else route,
                    )
                    for row in ids
                ]
            )
        return self.store.waiting_routes(), self.model.waiting_routes()

    def claim_waiting(
        self, one: int, other: int, claim_id: int, term: float
    ) -> tuple[object, object]:
        """Claim of what waits for routes."""
        turn = Turn([], 0, 0, claim_id, term, routes=RouteClaim(ROUTES, (one, other)))
        waited = self.store.round_trip(None, turn).waited
        self.model.turn(turn)
        return (
            sorted(
                (row._replace(id=row.id - self.first + 1, slot=0), name) for row, name in waited
            ),
            sorted(self.model.waited),
        )

    def release(self, held: list[tuple[int, int]], suspicious: bool) -> tuple[object, object]:
        """Give back."""
        self.store.release(self.real(held), suspicious=suspicious)
        self.model.release(modelled(held), suspicious=suspicious)
        return None, None

    def renew(self, held: list[tuple[int, int]], term: float) -> tuple[object, object]:
        """Keep."""
        self.store.renew(self.real(held), term)
        self.model.renew(modelled(held), term)
        return None, None

    def promote(self) -> tuple[object, object]:
        """Make work of what is due."""
        return self.store.promote(1000), self.model.promote()

    def real(self, held: list[tuple[int, int]]) -> list[Held]:
        """The same rows in Postgres."""
        return [Held(row + self.first - 1, 0, claim_id) for row, claim_id in held]

    def tables(self, connection: psycopg.Connection[Any]) -> tuple[object, object]:
        """What both hold, comparably."""
        ready = connection.execute(
            "SELECT id - %s, attempts, suspicion, claim_id, lease_until > now()"
            " FROM outbox.ready ORDER BY id",
            [self.first - 1],
        ).fetchall()
        parked = connection.execute(
            "SELECT id - %s, state, attempts, suspicion, available_at > now()"
            " FROM outbox.parked ORDER BY id",
            [self.first - 1],
        ).fetchall()
        now = self.model.now
        return (ready, parked), (
            [
                (id_, row.attempts, row.suspicion, row.claim_id, row.until > now)
                for id_, row in sorted(self.model.ready.items())
            ],
            [
                (id_, row.state, row.attempts, row.suspicion, row.available_at > now)
                for id_, row in sorted(self.model.parked.items())
            ],
        )


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(operations, min_size=1, max_size=12))
def test_the_model_database_is_postgres(
    shared_database: str, operations: list[tuple[Any, ...]]
) -> None:
    """Claims, settlements, refusals, releases, renewals, promotions: with any lease."""
    with psycopg.connect(shared_database, autocommit=True) as connection:
        connection.execute(
            "DELETE FROM outbox.message; DELETE FROM outbox.ready; DELETE FROM outbox.parked"
        )
        insert_rows(connection, message_ids=[f"m{row}" for row in range(1, 7)])
        (first,) = connection.execute("SELECT min(id) FROM outbox.message").fetchone() or (0,)
        model = ModelDatabase(Clock())
        for _ in range(6):
            model.commit(model.insert())
        store = Store.connect(shared_database, "outbox", 10)
        try:
            twins = Twins(store, model, first)
            for name, *given_ in operations:
                real, modelled = twins.do(name, *given_)
                assert real == modelled, name
                real, modelled = twins.tables(connection)
                assert real == modelled, name
        finally:
            store.close()
