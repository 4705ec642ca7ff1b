"""Faults 21, 29 and 47: the disk, the connections and the vacuum run out."""

import re
from contextlib import ExitStack
from time import monotonic

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.faults.disk import SmallDisk
from tests.faults.evidence import Said, is_alive
from tests.faults.lab import DEADLINE, Lab, LabOn
from tests.faults.queues import RabbitQueue
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until

#: Of a relay that has drained the table: forty, and some more right after a message.
LOOKS_A_SECOND = 60


@pytest.mark.fault(21)
def test_the_disk_is_full(lab_on: LabOn, small_disk: SmallDisk, migrated_template: str) -> None:
    """The producer gets an error and no row; the relay waits, and goes on when there is room."""
    lab = lab_on(small_disk.create_database(migrated_template))
    relay = lab.relay()
    lab.under_way(100)
    with lab.fault(lambda: lab.ledger.rolled_back):
        with pytest.raises(psycopg.errors.DiskFull):
            commit_for_ever(lab)
        assert is_alive(relay)
    small_disk.make_room()

    lab.finish()


@pytest.mark.fault(29)
def test_a_transaction_stays_open(lab: Lab) -> None:
    """Nothing it could still see is vacuumed, and yet a claim reads few rows beside its own."""
    relay = lab.relay(OUTBOX_WINDOW="1000", OUTBOX_BATCH_SIZE="500")
    lab.under_way(1)
    began = monotonic()
    with psycopg.connect(lab.database) as reader:
        reader.isolation_level = IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM outbox.message")
        with lab.fault(lambda: horizon(relay) > 0, count=0):
            for _ in range(6):
                lab.commit(1000)
                lab.wait_until_sent()
            wait_until(lambda: horizon(relay) > 0, DEADLINE, "a horizon that is seen")
            lab.run("VACUUM outbox.ready")
        [(dead,)] = lab.run("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'ready'")
        [(read,)] = lab.run(
            "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'ready'"
        )

    assert dead >= 6000
    # Claims, and looks: each reads again what was claimed since the last sweep, a second ago.
    looks = (monotonic() - began) * LOOKS_A_SECOND
    assert read < 6000 * 10 + looks * 1000
    lab.finish(duplicates=0, note=f"{read / 6000:.0f} index entries read a message")


@pytest.mark.fault(47)
def test_no_connection_is_left_in_the_database(lab_on: LabOn, own_postgres: OwnPostgres) -> None:
    """Idle sessions take every place: waited out, and nothing is to be done by hand."""
    server = own_postgres({"max_connections": "15"})
    lab = lab_on(migrated_database(server))
    relay = lab.relay()
    lab.under_way()
    with (
        lab.fault(lambda: said.again()),
        ExitStack() as idle,
    ):
        lab.to_database.refuse()
        relay.wait_for_event("database_lost")
        while take_a_place(lab.database, idle):
            pass
        said = Said(server, "FATAL:  sorry, too many clients already")
        lab.to_database.heal()
        wait_until(said.again, DEADLINE, "a relay that is turned away")
        assert not relay.ready()

    lab.finish()


@pytest.mark.fault(47)
def test_no_connection_is_left_at_the_broker(lab: Lab, rabbit: RabbitQueue) -> None:
    """The virtual host takes no more: waited out as well."""
    node, vhost = rabbit.broker.node, rabbit.broker.vhost
    relay = lab.relay()
    lab.under_way()
    with lab.fault(lambda: relay.events("broker_lost")):
        node.evaluate(
            f'rabbit_vhost_limit:set(<<"{vhost}">>, [{{<<"max-connections">>, 0}}], <<"">>)'
        )
        lab.to_broker.reset()
        relay.wait_for_event("broker_lost")
        wait_until(lambda: not relay.ready(), DEADLINE, "a relay that is not ready")
        lab.commit(100)
    node.evaluate(f'rabbit_vhost_limit:clear(<<"{vhost}">>, <<"">>)')

    lab.finish()


def commit_for_ever(lab: Lab) -> None:
    """Until an error ends it."""
    while True:
        lab.commit(100)


def take_a_place(url: str, stack: ExitStack) -> bool:
    """Open a session for as long as the stack is open; whether there was room."""
    try:
        stack.enter_context(psycopg.connect(url))
    except psycopg.OperationalError:
        return False
    return True


def horizon(relay: Relay) -> float:
    """For how long the relay says that vacuum may not clean."""
    [age] = re.findall(r"^outbox_horizon_age_seconds (\S+)$", relay.metrics(), re.MULTILINE)
    return float(age)
