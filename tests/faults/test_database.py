"""Faults 17, 18, 20 to 25, 28, 29, 38, 39 and 47: the database, and those who work on it."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, LiteralString
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import psycopg
import pytest
from psycopg import IsolationLevel, sql

from outbox_migrations import grant
from servers import Postgres
from tests.faults.disk import SmallDisk
from tests.faults.lab import DEADLINE, WINDOW, Lab
from tests.faults.ledger import insert
from tests.faults.queues import RabbitQueue, through
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until

LabOn = Callable[[str], Lab]
_BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE application_name LIKE 'outbox-relay%%' AND datname = current_database()
"""
_TERMINATE = f"SELECT count(pg_terminate_backend(pid)) FROM ({_BACKENDS}) AS relay"
_WAITING = f"{_BACKENDS} AND wait_event_type = 'Lock'"


@pytest.mark.smoke
@pytest.mark.fault(17)
def test_its_session_is_terminated_in_flight(lab: Lab) -> None:
    """With confirms on their way: they are written down on the next connection."""
    relay = lab.relay()
    with lab.fault(lambda: relay.events("database_lost")):
        lab.fill_the_window()
        assert lab.run(_TERMINATE)[0][0] > 0
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
        terminated += int(lab.run(_TERMINATE)[0][0])
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


@pytest.mark.fault(21)
def test_the_disk_is_full(lab_on: LabOn, small_disk: SmallDisk, migrated_template: str) -> None:
    """The producer gets an error and no row; the relay waits, and goes on when there is room."""
    lab = lab_on(small_disk.create_database(migrated_template))
    relay = lab.relay()
    lab.under_way(100)
    with lab.fault(lambda: lab.ledger.rolled_back):
        with pytest.raises(psycopg.errors.DiskFull):
            commit_for_ever(lab)
        assert urlopen(f"http://{relay.address}/livez", timeout=5).status == 200
    small_disk.make_room()

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
        lab.run(_TERMINATE)
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
    [(pid,)] = lab.run(_BACKENDS)
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
        assert urlopen(f"http://{relay.address}/livez", timeout=5).status == 200

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
    """40001 for two relays that meet on serialisable snapshots: tried again until it passes."""
    alter_database(lab.database, "SET default_transaction_isolation = 'serializable'")
    relays = [lab.relay() for _ in range(2)]

    def failed() -> list[Any]:
        return [
            event
            for relay in relays
            for event in relay.events("database_lost")
            if "serialize" in event["reason"]
        ]

    with lab.producer(), lab.fault(failed):
        wait_until(failed, DEADLINE, "a serialisation failure")
    alter_database(lab.database, "RESET default_transaction_isolation")
    lab.run(_TERMINATE)
    for relay in relays:
        lab.faults += len(relay.events("database_lost"))

    lab.finish()


@pytest.mark.smoke
@pytest.mark.fault(25)
def test_a_commit_of_unknown_outcome(lab: Lab) -> None:
    """It had happened: its message is sent, and the data beside it refuses to be written twice."""
    lab.run("CREATE TABLE orders (number int PRIMARY KEY)")
    [id_] = ids = lab.ledger.new_ids(1)
    with no_standby_answers(lab), lab.fault(lambda: ids == lab.ledger.unknown):
        connection = psycopg.connect(lab.database)
        pid = connection.info.backend_pid
        order(connection, 1, id_)
        lab.ledger.unknown |= ids
        with commit_in_background(connection) as outcome:
            wait_until(lambda: waits_for_a_standby(lab, pid), DEADLINE, "a COMMIT that waits")
            lab.run("SELECT pg_terminate_backend(%s)", pid)
        assert isinstance(outcome[0], psycopg.OperationalError)
    with psycopg.connect(lab.database) as again, pytest.raises(psycopg.errors.UniqueViolation):
        order(again, 1, id_)
    lab.relay()

    assert lab.finish(duplicates=0).recovered == ids


@pytest.mark.fault(28)
def test_an_early_id_commits_late(lab: Lab) -> None:
    """Later ids are sent long before; it is not skipped."""
    lab.relay()
    with lab.fault(lambda: late_ids < {id_ for (id_,) in lab.run("SELECT id FROM outbox.message")}):
        with psycopg.connect(lab.database) as slow:
            late = lab.ledger.new_ids(10)
            insert(slow, late)
            later = lab.commit(1000)
            wait_until(lambda: lab.queue.arrived().keys() >= later, DEADLINE, "the later ones")
            slow.commit()
        lab.ledger.committed |= late
        late_ids = {
            id_
            for (id_,) in lab.run(
                "SELECT id FROM outbox.message WHERE message_id = ANY (%s)", list(late)
            )
        }

    lab.finish(duplicates=0)


@pytest.mark.fault(29)
def test_a_transaction_stays_open(lab: Lab) -> None:
    """Nothing it could still see is vacuumed, and yet a claim reads few rows beside its own."""
    relay = lab.relay(OUTBOX_WINDOW="1000", OUTBOX_BATCH_SIZE="500")
    lab.under_way(1)
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
    assert read < 6000 * 50
    lab.finish(duplicates=0, note=f"{read / 6000:.0f} index entries read a message")


@pytest.mark.fault(38)
def test_the_password_is_changed(lab: Lab, postgres: Postgres, tmp_path: Path) -> None:
    """Not ready while the old one is refused; the new one is read without a restart."""
    said = Said(postgres, "password authentication failed")
    file = tmp_path / "url"
    with a_role(lab, "first") as url:
        file.write_text(through(url, lab.to_database.port))
        relay = lab.relay(OUTBOX_DATABASE_URL="", OUTBOX_DATABASE_URL_FILE=str(file))
        lab.under_way()
        with lab.fault(said.again):
            set_password(lab, url, "second")
            lab.run(_TERMINATE)
            wait_until(said.again, DEADLINE, "a login that fails")
            lab.commit(100)
            assert not relay.ready()
        file.write_text(through(url.replace(":first@", ":second@"), lab.to_database.port))

        lab.finish()
    assert "second" not in relay.output()


@pytest.mark.fault(39)
def test_its_rights_are_taken_away(lab: Lab) -> None:
    """REVOKE in mid-traffic: waited out, said with the way out, charged to no message."""
    with a_role(lab, "first") as url:
        relay = lab.relay(OUTBOX_DATABASE_URL=through(url, lab.to_database.port))
        lab.under_way()
        with lab.fault(lambda: "grant" in relay.events("database_lost")[0]["reason"]):
            lab.run("REVOKE UPDATE ON outbox.ready FROM outbox_relay")
            lab.commit(100)
            relay.wait_for_event("database_lost")
            assert not relay.process.poll()
        lab.run("GRANT UPDATE ON outbox.ready TO outbox_relay")

        lab.finish()


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


def locked(lab: Lab) -> set[int]:
    """The ids of work that some transaction has locked."""
    free = "SELECT id FROM outbox.ready FOR UPDATE SKIP LOCKED"
    with psycopg.connect(lab.database) as connection:
        everything = connection.execute("SELECT id FROM outbox.ready").fetchall()
        return {id_ for (id_,) in everything} - {id_ for (id_,) in connection.execute(free)}


class Said:
    """What a server has written into its log since this was made."""

    def __init__(self, server: Postgres, words: str) -> None:
        self._log, self._words = server.log, words
        self._before = self._count()

    def again(self) -> bool:
        """Whether it has said those words."""
        return self._count() > self._before

    def _count(self) -> int:
        return self._log.read_text(errors="replace").count(self._words)


@contextmanager
def no_standby_answers(lab: Lab) -> Iterator[None]:
    """Every COMMIT on the server waits for a standby that does not exist."""
    lab.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    lab.run("SELECT pg_reload_conf()")
    shown = "SELECT 1 FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting <> ''"
    wait_until(lambda: lab.run(shown), DEADLINE, "the setting")
    try:
        yield
    finally:
        lab.run("ALTER SYSTEM RESET synchronous_standby_names")
        lab.run("SELECT pg_reload_conf()")
        wait_until(lambda: not lab.run(shown), DEADLINE, "an end of the setting")


@contextmanager
def commit_in_background(connection: psycopg.Connection[Any]) -> Iterator[list[Exception | None]]:
    """COMMIT on another thread; at the end of the block, how it went."""
    outcome: list[Exception | None] = []

    def commit() -> None:
        try:
            connection.commit()
        except psycopg.Error as error:
            outcome.append(error)
        else:
            outcome.append(None)

    thread = Thread(target=commit)
    thread.start()
    yield outcome
    thread.join()


def waits_for_a_standby(lab: Lab, pid: int) -> bool:
    """Whether that session's COMMIT is written, and not yet answered."""
    state = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
    return bool(lab.run(state, pid))


def order(connection: psycopg.Connection[Any], number: int, message_id: str) -> None:
    """Business data and its message, in the connection's transaction."""
    connection.execute("INSERT INTO orders VALUES (%s)", (number,))
    insert(connection, [message_id])


def alter_database(url: str, change: LiteralString) -> None:
    """ALTER DATABASE, for sessions that begin from now on."""
    name = sql.Identifier(urlsplit(url).path.removeprefix("/"))
    writable = "-c default_transaction_read_only=off"
    with psycopg.connect(url, autocommit=True, options=writable) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ").format(name) + sql.SQL(change))


@contextmanager
def a_role(lab: Lab, password: str) -> Iterator[str]:
    """The URL of a login with a relay's rights."""
    grant(lab.database)
    name = f"relay_{os.urandom(4).hex()}"
    lab.run(f"CREATE ROLE {name} LOGIN IN ROLE outbox_relay")
    parts = urlsplit(lab.database)
    netloc = f"{name}:{password}@{parts.hostname}:{parts.port}"
    url = urlunsplit(parts._replace(netloc=netloc))
    set_password(lab, url, password)
    yield url


def set_password(lab: Lab, url: str, password: str) -> None:
    """Change the password of the login in a URL."""
    name = sql.Identifier(urlsplit(url).username or "")
    with psycopg.connect(lab.database, autocommit=True) as connection:
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(password))
        connection.execute(statement)


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
