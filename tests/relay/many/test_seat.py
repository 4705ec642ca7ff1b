"""One seat, on a real database: what it leaves behind."""

from dataclasses import replace
from queue import SimpleQueue
from time import monotonic

import psycopg

from outbox_relay.broker.publisher import Publisher
from outbox_relay.broker.registry import publisher_factory
from outbox_relay.errors import SettingsError
from outbox_relay.loop.incidents import outages
from outbox_relay.loop.left import NOTHING
from outbox_relay.many.chores import effects_of, homecoming_of
from outbox_relay.many.desk import Desk
from outbox_relay.many.observe import Boards
from outbox_relay.many.seat import Ended, Seat, seat_settings
from outbox_relay.settings import Secret
from tests.fixtures.broker import Broker
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


def test_what_it_leaves_is_the_next_ones(databases: list[list[Tenant]], broker: Broker) -> None:
    """Session and publisher serve another outbox; its own is rung for by somebody else at once."""
    first, second, _ = databases[0]
    left = NOTHING
    for tenant in (first, second):
        ids = tenant.commit()
        seat, ended = seat_of(tenant, broker)
        before = left
        seat.start(left)
        tenant.wait_sent(ids)
        wait_until(lambda tenant=tenant: tenant.rung(), DEADLINE, "it is rung")  # type: ignore[misc]  # the default binds the loop's value
        seat.leave()
        left = ended.get(timeout=DEADLINE).left
        with psycopg.connect(tenant.url) as other:
            taken = f"SELECT pg_try_advisory_lock(watch) FROM {tenant.schema}.bell()"
            assert other.execute(taken.encode()).fetchone() == (True,)

    assert left.session is before.session is not None
    assert left.publisher is before.publisher is not None
    left.close()


def seat_of(tenant: Tenant, broker: Broker) -> tuple[Seat, SimpleQueue[Ended]]:
    """A seat, and what it says when it ends."""
    ended, outbox = SimpleQueue[Ended](), outbox_of(tenant)
    settings = replace(outbox.settings, broker_url=Secret("OUTBOX_BROKER_URL", broker.url))
    metrics, health = Boards().board(outbox.name)
    homecoming = homecoming_of(settings, metrics)
    open_publisher = publisher_factory(settings)
    desk = Desk(
        outbox,
        metrics,
        health,
        *outages(monotonic),
        open_publisher,
        homecoming,
        effects_of(settings),
    )
    return Seat(desk, seat_settings(settings, 1.0), ended.put), ended
