"""`python -m demo` proves what it promises, and leaves nothing running however it ends."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest

from servers.processes import family, is_alive
from tests.fixtures.programs import Program
from tests.fixtures.waiting import wait_until

SECONDS = 60.0
Demo = Callable[..., Program]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Start the demo: ``demo(DATABASE_URL=...)``."""
    paths = f"{Path.cwd() / 'tools'}{os.pathsep}{Path.cwd() / 'examples/shop'}"
    own = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    foreign = ("BROKER", "BROKER_URL", "DATABASE_URL", "KEEP")
    inherited = {name: value for name, value in os.environ.items() if name not in foreign}
    with ExitStack() as programs:

        def start(**environment: str) -> Program:
            argv = [sys.executable, "-m", "demo"]
            program = Program(argv, tmp_path, {**inherited, **own, **environment})
            programs.callback(program.kill)
            return program

        yield start


@pytest.mark.timeout(240)
def test_it_proves_that_nothing_is_lost(demo: Demo, rabbitmq_root: Path) -> None:
    """Broker and relay are killed, and every committed task is executed exactly once.

    Asked to, everything goes on after that, until Ctrl-C ends it in order.
    """
    running = demo(BROKER="rabbitmq", KEEP="1")
    running.wait_for_output("it goes on at http://", 200)
    running.process.send_signal(signal.SIGINT)

    assert running.wait(SECONDS) == 0, running.output()
    story = running.output()
    assert "RabbitMQ SIGKILLed" in story
    assert "takes over" in story
    assert "Every committed task was executed exactly once" in story


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_it_outlives_it(demo: Demo, broker_url: str, ending: signal.Signals) -> None:
    """Ctrl-C in the middle, an orderly stop and a crash all end every process it has started."""
    running = demo(BROKER_URL=broker_url)
    running.wait_for_output("customers start ordering", SECONDS)
    started = family(running.process.pid)
    assert len(started) > 8  # Postgres, Valkey, relay, worker and their children

    running.process.send_signal(ending)

    assert running.wait(SECONDS) == (-ending if ending == signal.SIGKILL else 130)
    wait_until(lambda: not any(map(is_alive, started)), SECONDS, "the end of all processes")


def test_given_servers_are_used_and_left_running(
    demo: Demo, empty_database: str, broker_url: str
) -> None:
    """The database is migrated and holds the shop; nobody stops or kills its server.

    The console shows what happens there, at the address that the demo prints.
    """
    running = demo(DATABASE_URL=empty_database, BROKER_URL=broker_url)
    running.wait_for_output("customers start ordering", SECONDS)
    (address,) = re.findall(r"while it runs: (http://\S+)", running.output())
    assert "Outbox" in httpx.get(f"{address}/messages?state=sent", timeout=10).text
    running.process.send_signal(signal.SIGINT)

    assert running.wait(SECONDS) == 130
    assert "yours, as DATABASE_URL says" in running.output()
    with psycopg.connect(empty_database) as connection:
        connection.execute("SELECT FROM shop.orders")
        connection.execute("SELECT FROM outbox.pending")


def test_a_database_that_is_not_there_is_named(demo: Demo, broker_url: str) -> None:
    """One sentence instead of a traceback."""
    running = demo(DATABASE_URL="postgresql://127.0.0.1:1/shop", BROKER_URL=broker_url)

    assert running.wait(SECONDS) == 1
    assert "Traceback" not in running.output()
    assert "127.0.0.1" in running.output()
