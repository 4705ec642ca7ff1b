"""A pooler between doctor and database is seen, and told by its mode.

PGBOUNCER names the program; without it and none on PATH, these tests are skipped.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from servers.ports import free_port
from servers.processes import kill_family, spawn
from tests.fixtures.waiting import wait_until
from tests.relay.commands.conftest import Cli, finding

Pooler = Callable[[str], str]

SETTINGS = """
[databases]
shop = host={host} port={port} dbname={database} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""


@pytest.fixture
def pooler(database: str, tmp_path: Path) -> Iterator[Pooler]:
    """Start pgbouncer in front of the fresh database: ``pooler("transaction")`` is its URL."""
    program = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer")
    if not program:
        pytest.skip("no pgbouncer on PATH: apt-get install pgbouncer, or set PGBOUNCER")
    real = urlsplit(database)
    with ExitStack() as started:

        def start(mode: str) -> str:
            listen = free_port()
            settings = tmp_path / "pgbouncer.ini"
            settings.write_text(
                SETTINGS.format(
                    host=real.hostname,
                    port=real.port,
                    database=real.path[1:],
                    user=real.username,
                    password=real.password,
                    listen=listen,
                    mode=mode,
                )
            )
            as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to be root
            process = spawn(
                [program, *as_nobody, str(settings)], folder=tmp_path, log=tmp_path / "log"
            )
            started.callback(kill_family, process)
            wait_until(lambda: _listens(listen), 10, "pgbouncer")
            return f"postgresql://anybody@127.0.0.1:{listen}/shop"

        yield start


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def test_transaction_mode_is_a_problem(command: Cli, pooler: Pooler) -> None:
    """Told apart without asking the pooler, and with the setting that mends it."""
    answer = command("doctor", "--database-url", pooler("transaction"))

    assert answer.code == 1
    text = finding(answer, "problem", "connection pooling")
    assert "transaction mode" in text
    assert "pool_mode = session" in text


def test_session_mode_is_a_warning(command: Cli, pooler: Pooler) -> None:
    """It works, with a hop more."""
    answer = command("doctor", "--database-url", pooler("session"))

    assert "session mode" in finding(answer, "warn", "connection pooling")


def test_operators_may_look_through_a_pooler(command: Cli, pooler: Pooler) -> None:
    """Looking needs no session state."""
    answer = command("status", "--json", "--database-url", pooler("transaction"))

    assert answer.json()["pending"] == 0


def test_a_direct_connection_is_seen_as_one(command: Cli, database: str) -> None:
    """No false alarm."""
    answer = command("doctor", "--database-url", database)

    assert "direct" in finding(answer, "ok", "connection pooling")
