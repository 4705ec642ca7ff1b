"""The private Postgres: durable, alone on its port, gone with its parent."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from servers import Postgres, StartFailed
from servers.processes import is_alive
from tests.fixtures.postgres import OwnPostgres
from tests.servers.conftest import LeftBehind


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that may also belong to the user Postgres runs as for root."""
    folder = Path(tempfile.mkdtemp(prefix="celery-outbox-postgres-"))
    yield folder
    Postgres(folder).discard()


def test_commits_survive_a_crash(own_postgres: OwnPostgres) -> None:
    """What was committed is there after SIGKILL and a start on the same port."""
    server = own_postgres()
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        shown = connection.execute("SHOW fsync").fetchone()
    pids = server.pids()

    server.kill()
    server.start()

    assert shown == ("on",)
    assert not set(pids) & set(server.pids())
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("TABLE kept").fetchall() == [(7,)]


def test_a_clone_is_its_own_database(own_postgres: OwnPostgres) -> None:
    """A database made from a template has its tables and none of its later changes."""
    server = own_postgres()
    template = server.create_database("pattern")
    with psycopg.connect(template) as connection:
        connection.execute("CREATE TABLE empty (number int)")

    with psycopg.connect(server.create_database(template="pattern")) as connection:
        connection.execute("INSERT INTO empty VALUES (1)")

    with psycopg.connect(template) as connection:
        assert connection.execute("TABLE empty").fetchall() == []
    server.drop_database("pattern")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(template)


def test_settings_reach_the_server(own_postgres: OwnPostgres) -> None:
    """Settings given win over the defaults."""
    server = own_postgres({"fsync": "off", "max_connections": "17"})

    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("off",)
        assert connection.execute("SHOW max_connections").fetchone() == ("17",)


def test_other_users_of_the_machine_are_kept_out(own_postgres: OwnPostgres) -> None:
    """Loopback is shared by everybody on the machine, so a password is asked for."""
    server = own_postgres()

    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.dsn().replace(server.password, "guess"))


def test_frozen_answers_after_thawing(own_postgres: OwnPostgres) -> None:
    """A query sent to a frozen server is answered once it is thawed."""
    server = own_postgres()

    with psycopg.connect(server.dsn()) as connection:
        with server.frozen():
            connection.pgconn.send_query(b"SELECT 1")
            states = {_state(pid) for pid in server.pids()}
        answer = connection.pgconn.get_result()
        assert connection.pgconn.get_result() is None  # libpq's end of the answer

    assert states == {"T"}
    assert answer is not None
    assert answer.get_value(0, 0) == b"1"


def test_a_refused_setting_is_reported(folder: Path) -> None:
    """A server that cannot start says so in its own words."""
    server = Postgres(folder, {"max_connections": "none"})

    with pytest.raises(StartFailed, match='invalid value for parameter "max_connections"'):
        server.start()


@pytest.mark.parametrize("state", ["running", "frozen"])
def test_gone_with_its_parent(
    folder: Path, state: str, assert_gone_with_parent: LeftBehind
) -> None:
    """No process is left when the parent is SIGKILLed, even while the server is frozen."""
    assert_gone_with_parent("Postgres", folder, state)


def test_nothing_is_left_after_stop(own_postgres: OwnPostgres) -> None:
    """Stopping ends every process; stopping again is harmless."""
    server = own_postgres()
    pids = server.pids()

    server.stop()
    server.stop()

    assert len(pids) > 1
    assert not any(map(is_alive, pids))


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
