"""Faults 13, 15, 17, 18, 20 and 22 to 24: the database, and the network before it."""

from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from servers import Postgres
from tests.faults.evidence import BACKENDS, TERMINATE, Said, is_alive
from tests.faults.lab import DEADLINE, WINDOW, Lab
from tests.fixtures.waiting import wait_until

_WAITING = f"{BACKENDS} AND wait_event_type = 'Lock'"


@pytest.mark.smoke
@pytest.mark.fault(17)
def test_its_session_is_terminated_in_flight(lab: Lab) -> None:
    """With confirms on their way: they are written down on the next connection."""
    relay = lab.relay()
    with lab.fault(lambda: relay.events("database_lost")):
        lab.fill_the_window()
        assert lab.run(TERMINATE)[0][0] > 0
        relay.wait_for_event("database_lost")
    lab.to_broker.heal()

    lab.finish()


@pytest.mark.fault(17)
def test_its_sessions_are_terminated_again_and_again(lab: Lab) -> None:
    """In every phase of the work, with producers that go on."""
    relay = lab.relay()
    terminated = 0

    def terminate() -> bool:
        nonlocal terminated
        terminated += int(lab.run(TERMINATE)[0][0])
        return terminated >= 10

    with lab.producer():
        lab.under_way(500)
        with lab.fault(lambda: relay.events("database_lost"), count=10):
            wait_until(terminate, DEADLINE, "ten terminations")
    lab.faults += terminated - 10

    lab.finish()


@pytest.mark.fault(18)
def test_the_server_is_killed(database_lab: Lab, mortal_postgres: Postgres) -> None:
    """Immediate stop in mid-drain, crash recovery, and all by itself."""
    lab = database_lab
    relay = lab.relay()
    with lab.producer():
        lab.under_way(500)
        with lab.fault(lambda: relay.events("database_lost")):
            mortal_postgres.kill()
            wait_until(lambda: not relay.ready(), DEADLINE, "a relay that is not ready")
            mortal_postgres.start()

    lab.finish()


@pytest.mark.fault(20)
def test_a_table_is_locked(lab: Lab) -> None:
    """LOCK TABLE for longer than a statement may take: tried again, later."""
    relay = lab.relay()
    lab.under_way()
    with lab.fault(lambda: relay.events("database_lost")), psycopg.connect(lab.database) as other:
        other.execute("LOCK TABLE outbox.ready IN ACCESS EXCLUSIVE MODE")
        relay.wait_for_event("database_lost")

    lab.finish()


@pytest.mark.fault(22)
def test_it_becomes_read_only(lab: Lab, postgres: Postgres) -> None:
    """What cannot be claimed is not published."""
    said = Said(postgres, "in a read-only transaction")
    relay = lab.relay()
    lab.under_way(300)
    lab.wait_until_sent()
    lab.queue.arrived()
    with lab.fault(said.again):
        alter_database(lab.database, "SET default_transaction_read_only = on")
        lab.run(TERMINATE)
        lab.ledger.commit(f"{lab.database}?options=-c%20default_transaction_read_only%3Doff", 300)
        wait_until(said.again, DEADLINE, "a claim that fails")
        assert lab.queue.arrived().total() == lab.sent()
        assert relay.events("database_lost")
    alter_database(lab.database, "RESET default_transaction_read_only")

    lab.finish()


@pytest.mark.fault(23)
def test_its_backend_is_frozen(lab: Lab, postgres: Postgres) -> None:
    """SIGSTOP: no server timeout can fire, the client's own deadline does."""
    relay = lab.relay()
    lab.under_way()
    [(pid,)] = lab.run(BACKENDS)
    with lab.fault(lambda: relay.events("database_lost")), postgres.frozen(pid):
        lab.commit(300)
        relay.wait_for_event("database_lost")
        lab.wait_until_sent()  # on another backend; this one's claims have run out

    lab.finish()


@pytest.mark.fault(23)
def test_the_server_is_frozen(database_lab: Lab, mortal_postgres: Postgres) -> None:
    """All of it: not ready, and alive, because the loop comes round."""
    lab = database_lab
    relay = lab.relay()
    lab.under_way()
    with lab.fault(lambda: relay.events("database_lost")), mortal_postgres.frozen():
        relay.wait_for_event("database_lost")
        wait_until(lambda: not relay.ready(), DEADLINE, "a relay that is not ready")
        assert is_alive(relay)

    lab.finish()


@pytest.mark.fault(13)
def test_the_way_there_is_half_open(lab: Lab) -> None:
    """Bytes vanish both ways between relay and database: found out by the deadline."""
    relay = lab.relay()
    with lab.producer():
        lab.under_way(300)
        with lab.fault(lambda: lab.to_database.evidence["dropped"] > 0):
            lab.to_database.drop()
            relay.wait_for_event("database_lost")
        lab.to_database.heal()

    lab.finish()


@pytest.mark.fault(15)
@pytest.mark.parametrize("size", [701, 9_001, 40_009])
def test_the_way_there_is_reset(lab: Lab, size: int) -> None:
    """RST after so many bytes of the database's answers."""
    relay = lab.relay()
    lab.under_way(1)
    with lab.fault(lambda: lab.to_database.evidence["reset"] and relay.events("database_lost")):
        lab.to_database.reset_after(size, "down")
        lab.commit(1000)
        relay.wait_for_event("database_lost")

    lab.finish()


@pytest.mark.fault(24)
def test_a_deadlock(lab: Lab) -> None:
    """Somebody locks rows in the opposite order, and the relay is the victim."""
    relay = lab.relay(OUTBOX_STATEMENT_TIMEOUT="30s", OUTBOX_CONFIRM_TIMEOUT="60s")
    with lab.fault(lambda: "deadlock" in relay.events("database_lost")[0]["reason"]):
        lab.fill_the_window(WINDOW)
        full = f"outbox_in_flight_messages {WINDOW}.0"
        wait_until(lambda: full in relay.metrics(), DEADLINE, "a full window")
        [(last,)] = lab.run("SELECT max(id) FROM outbox.ready")
        lock = "SELECT FROM outbox.ready WHERE id = %s FOR UPDATE"
        with psycopg.connect(lab.database) as other:
            other.execute("SET deadlock_timeout = '1h'")
            other.execute(lock, (last,))
            lab.to_broker.heal()
            wait_until(lambda: lab.run(_WAITING), DEADLINE, "a relay that waits for the lock")
            other.execute(lock, (min(locked(lab)),))
        relay.wait_for_event("database_lost")

    lab.finish()


@pytest.mark.fault(24)
def test_a_stricter_isolation_level(lab: Lab) -> None:
    """SERIALIZABLE by default: two relays ask for what they need, and never meet a 40001."""
    alter_database(lab.database, "SET default_transaction_isolation = 'serializable'")
    relays = [lab.relay() for _ in range(2)]
    shown = "SHOW default_transaction_isolation"
    with lab.producer(), lab.fault(lambda: lab.run(shown) == [("serializable",)], count=0):
        lab.under_way(1000)

    lab.finish(duplicates=0)
    assert not any(relay.events("database_lost") for relay in relays)


def locked(lab: Lab) -> set[int]:
    """The ids of work that some transaction has locked."""
    free = "SELECT id FROM outbox.ready FOR UPDATE SKIP LOCKED"
    with psycopg.connect(lab.database) as connection:
        everything = connection.execute("SELECT id FROM outbox.ready").fetchall()
        return {id_ for (id_,) in everything} - {id_ for (id_,) in connection.execute(free)}


def alter_database(url: str, change: LiteralString) -> None:
    """ALTER DATABASE, for sessions that begin from now on."""
    name = sql.Identifier(urlsplit(url).path.removeprefix("/"))
    writable = "-c default_transaction_read_only=off"
    with psycopg.connect(url, autocommit=True, options=writable) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ").format(name) + sql.SQL(change))
