"""A backlog that was held is worked off by priority, and what has none is not starved by it."""

import psycopg

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
EACH, BATCH = 300, 40


def test_the_urgent_go_first_and_the_others_have_their_turn(
    relay: RelayFactory, database: str, broker: Broker
) -> None:
    """Though they were sent last, and wait for the same; all arrive, once, at no attempt."""
    broker.declare("mail")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT outbox.pause(queue => 'mail')")
        for priority in (0, 5, 9):
            commit_rows(
                database, EACH, routing_key="mail",
                properties=f'{{"delivery_mode": 2, "priority": {priority}}}',
            )  # fmt: skip
        relay(
            OUTBOX_DATABASE_URL=database,
            OUTBOX_BROKER_URL=broker.url,
            OUTBOX_BATCH_SIZE=str(BATCH),
        )
        held = "SELECT count(*) = %s FROM outbox.parked WHERE route = chr(30) || 'queue:mail'"
        wait_until(
            lambda: connection.execute(held, [3 * EACH]).fetchone() == (True,), DEADLINE, "all held"
        )
        connection.execute("SELECT outbox.resume(queue => 'mail')")
    wait_until(lambda: broker.depth("mail") == 3 * EACH, DEADLINE, "all sent")
    wait_until(lambda: states(database)["sent"] == 3 * EACH, DEADLINE, "all settled")

    order = [int(m.properties["priority"]) for m in broker.take_all("mail")]
    places = {p: [n for n, each in enumerate(order) if each == p] for p in (0, 5, 9)}
    claims = BATCH // 2
    assert order[:claims] == [9] * claims
    assert [len(each) for each in places.values()] == [EACH] * 3
    assert places[9][EACH * 9 // 10] < places[5][EACH // 10]
    assert places[5][EACH * 9 // 10] < places[0][EACH * 9 // 10]
    # The oldest have every fourth claim: they get on while the urgent still come.
    assert places[0][0] < places[9][-1]
