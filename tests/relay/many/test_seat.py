"""One seat, on a real database: what it leaves behind."""

from queue import SimpleQueue
from time import monotonic

import psycopg

from outbox_relay.broker.publisher import Publisher
from outbox_relay.errors import SettingsError
from outbox_relay.loop.incidents import outages
from outbox_relay.many.chores import effects_of, homecoming_of
from outbox_relay.many.observe import Boards
from outbox_relay.many.seat import Desk, Ended, Seat, seat_settings
from tests.fixtures.waiting import wait_until
from tests.relay.many.tenants import DEADLINE, Tenant
from tests.relay.many.test_watch import outbox_of


def test_one_that_fails_leaves_no_connection_open(databases: list[list[Tenant]]) -> None:
    """Others follow, each with a connection: the server would have none left."""
    tenant = databases[0][0]
    outbox, ended = outbox_of(tenant), SimpleQueue[Ended]()
    metrics, health = Boards().board(outbox.name)

    def refuse(*, for_suspects: bool = False, elsewhere: bool = False) -> Publisher:
        raise SettingsError("this broker cannot do that")

    homecoming, effects = homecoming_of(outbox.settings, metrics), effects_of(outbox.settings)
    desk = Desk(outbox, metrics, health, *outages(monotonic), refuse, homecoming, effects)
    seat = Seat(desk, seat_settings(outbox.settings, 1.0), ended.put)
    seat.start()

    assert ended.get(timeout=DEADLINE).reason == "this broker cannot do that"
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(tenant.url, autocommit=True) as connection:
        wait_until(
            lambda: connection.execute(others).fetchone() == (0,), DEADLINE, "none is left open"
        )
