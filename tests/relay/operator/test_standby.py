"""Looking at the outbox on a hot standby: what only reads works there, and says what does not."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest

from outbox_relay.errors import StoreLost
from outbox_relay.operator.session import Session
from outbox_relay.postgres.database import connect
from servers import Standby
from tests.faults.queues import through
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.rows import commit_rows
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Cli

DEADLINE: Final = 60.0
CAUGHT_UP: Final[LiteralString] = (
    "SELECT FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()"
)
LONG: Final = "SELECT count(pg_sleep(60)) FROM (SELECT id FROM {outbox}.ready LIMIT 1) one"
RUNNING: Final[LiteralString] = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@dataclass(frozen=True, slots=True)
class Pair:
    """The outbox on its primary, and on a standby that lets no query hold it up."""

    primary: str
    standby: str

    def follow(self) -> None:
        """Wait until the standby has all that the primary has."""
        with psycopg.connect(self.primary, autocommit=True) as connection:
            wait_until(lambda: connection.execute(CAUGHT_UP).rowcount, DEADLINE, "the standby")


@pytest.fixture
def pair(own_postgres: OwnPostgres) -> Iterator[Pair]:
    """Two servers."""
    primary = own_postgres()
    url = migrated_database(primary)
    folder = Path(tempfile.mkdtemp(prefix="celery-outbox-standby-"))
    standby = Standby(folder, primary, {"max_standby_streaming_delay": "0"})
    try:
        yield Pair(url, through(url, standby.start().port))
    finally:
        standby.discard()


def test_what_only_reads_works_on_a_standby(pair: Pair, command: Cli) -> None:
    """Lists and counts are those of the primary."""
    (message_id,) = commit_rows(pair.primary)
    pair.follow()

    status = command("status", "--json", OUTBOX_DATABASE_URL=pair.standby)
    pending = command("pending", "--json", OUTBOX_DATABASE_URL=pair.standby)

    assert (status.code, status.json()["pending"]) == (0, 1)
    assert message_id in pending.out


def test_a_query_in_the_way_of_the_replay_says_what_to_do(pair: Pair) -> None:
    """The standby cancels it, because the primary has removed rows that it still sees."""
    commit_rows(pair.primary, 100)
    pair.follow()
    session = Session(connect(pair.standby, "test", DEADLINE), "outbox")
    with session, ThreadPoolExecutor(1) as aside:
        asking = aside.submit(session.value, LONG)
        with psycopg.connect(pair.standby, autocommit=True) as watching:
            wait_until(lambda: watching.execute(RUNNING).rowcount, DEADLINE, "a long query")
        with psycopg.connect(pair.primary, autocommit=True) as connection:
            connection.execute("DELETE FROM outbox.ready")
            connection.execute("VACUUM outbox.ready")

        with pytest.raises(StoreLost, match=r"conflict with recovery.*ask the primary"):
            asking.result(DEADLINE)
