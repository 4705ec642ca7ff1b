"""Upgrading while orders come in: the schema first, then the relays, one beside the other.

The older release is taken from the project's own history and really run.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest

from outbox_migrations import status, upgrade
from tests.faults.checker import judge
from tests.faults.ledger import Ledger, Producer
from tests.faults.queues import RabbitQueue
from tests.faults.results import Measured
from tests.fixtures.programs import CHECKOUT, Relay, RelayFactory
from tests.fixtures.waiting import wait_until

#: The tag of the release before this one. None: nothing is released yet.
OLDER: Final[str | None] = None
DEADLINE: Final = 60.0
STEP: Final = 500

SENT: LiteralString = "SELECT count(*) FROM outbox.sent"
UNSENT: LiteralString = "SELECT pending + scheduled + dead FROM outbox.stats"
STORED: LiteralString = "SELECT message_id FROM outbox.message"
MIGRATE: Final = "import sys; from outbox_migrations import upgrade; upgrade(sys.argv[1])"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The relay and the migrations of the older release."""
    folder = Path(tmp_path_factory.mktemp("older"))
    if OLDER is None:
        pytest.skip("nothing is released yet, so there is nothing to upgrade")
    command = ("git", "-C", str(CHECKOUT), "archive", OLDER, "relay", "migrations")
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"no history to take the older release from: {archive.stderr.decode()}")
    subprocess.run(("tar", "-x", "-C", str(folder)), input=archive.stdout, check=True)
    return folder


@pytest.fixture
def older_database(older: Path, empty_database: str) -> str:
    """A database as the older release has made it."""
    subprocess.run(
        (sys.executable, "-c", MIGRATE, empty_database),
        env={"PYTHONPATH": str(older / "migrations")},
        check=True,
    )
    return empty_database


def ask(database: str, statement: LiteralString) -> list[object]:
    """The first column of what it returns."""
    with psycopg.connect(database) as connection:
        return [row[0] for row in connection.execute(statement)]


def wait_for_more(database: str) -> None:
    """Wait until so many more messages are sent."""
    (before,) = ask(database, SENT)
    wanted = int(str(before)) + STEP
    wait_until(lambda: ask(database, SENT) >= [wanted], DEADLINE, f"{STEP} more sent")


@pytest.mark.fault(40)
def test_schema_and_relay_are_upgraded_under_load(
    older: Path,
    older_database: str,
    relay: RelayFactory,
    rabbit: RabbitQueue,
    tmp_path: Path,
    record: Callable[[Measured], None],
) -> None:
    """Nothing is lost, nothing is sent twice, and no commit is left without an answer."""
    ledger, database = Ledger(), older_database
    environment = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": rabbit.url}
    paths = {"PYTHONPATH": str(older / "relay")}
    command = (sys.executable, "-m", "outbox_relay")
    old = Relay(("run",), tmp_path, {**environment, **paths}, command)
    try:
        old.wait_ready()
        assert str(older) in Path(f"/proc/{old.process.pid}/environ").read_text()
        with Producer(ledger, database):
            wait_for_more(database)
            assert not all(each.current for each in status(database))

            upgrade(database)
            assert all(each.current for each in status(database))
            wait_for_more(database)

            new = relay(**environment)
            wait_for_more(database)
            assert published(old)
            assert published(new)

            assert old.stop() == 0
            wait_for_more(database)
        wait_until(lambda: ask(database, UNSENT) == [0], DEADLINE, "an empty outbox")
    finally:
        old.kill()

    verdict = judge(ledger, rabbit.arrived("celery"), set(map(str, ask(database, STORED))))
    verdict.assert_kept(duplicates=0)
    assert not ledger.unknown
    record(Measured(verdict, 1, 0))


def published(relay: Relay) -> bool:
    """Whether it has confirmed anything."""
    lines = relay.metrics().splitlines()
    return any(line.startswith("outbox_published_total{") for line in lines)
