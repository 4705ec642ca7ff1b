"""How far standbys are, as Postgres tells it: who counts, and from whom it is hidden."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from outbox_migrations import grant
from outbox_relay.core.claim import Turn
from outbox_relay.errors import SchemaError
from outbox_relay.postgres.store import Store
from servers import Postgres, Standby
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.rows import commit_rows
from tests.fixtures.waiting import wait_until


@pytest.fixture
def primary(own_postgres: OwnPostgres) -> Postgres:
    """A server that copies can be made of."""
    return own_postgres({"wal_level": "logical", "synchronous_standby_names": ""})


@pytest.fixture
def standby(primary: Postgres) -> Iterator[Standby]:
    """Its copy."""
    made = Standby(Path(tempfile.mkdtemp(prefix="celery-outbox-standby-")), primary)
    try:
        yield made.start()
    finally:
        made.discard()


def test_a_standby_is_far_enough_once_it_has_flushed(primary: Postgres, standby: Standby) -> None:
    """What a claim has seen is in the log by the position it is told; a dead standby is none."""
    url = migrated_database(primary)
    commit_rows(url, 3)
    with (
        closing(Store.connect(url, "outbox", 5, fence=1)) as one,
        closing(Store.connect(url, "outbox", 5, fence=2)) as two,
    ):
        claimed = one.round_trip(None, Turn([], 0, 10, 1, 60.0))
        assert len(claimed.rows) == 3
        assert claimed.standbys
        position = claimed.standbys.written

        def flushed() -> int:
            told = one.round_trip(None, None).standbys
            return told.flushed if told else 0

        wait_until(lambda: flushed() >= position, 20, "a standby that has it")
        [lonely] = [two.round_trip(None, None).standbys]
        assert lonely
        assert (lonely.flushed, lonely.connected) == (0, 1)

        standby.kill()
        wait_until(lambda: flushed() == 0, 20, "nobody that could have it")


def test_who_only_receives_is_no_standby(primary: Postgres, tmp_path: Path) -> None:
    """An archive of the log cannot be promoted, and a logical subscriber is another database."""
    url = migrated_database(primary)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('reader', 'pgoutput')")
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        connection.execute("SELECT pg_create_physical_replication_slot('archive')")
    options = "proto_version '1', publication_names 'everything'"
    with (
        subprocess.Popen(
            [
                str(primary.binaries / "pg_receivewal"),
                f"--dbname={primary.dsn()}",
                f"--directory={tmp_path}",
                "--slot=archive",
                "--synchronous",
            ],
            stderr=subprocess.DEVNULL,
        ) as archive,
        closing(Store.connect(url, "outbox", 5, fence=1)) as store,
        closing(psycopg.connect(make_conninfo(url, replication="database"))) as subscriber,
    ):
        try:
            subscriber.pgconn.exec_(
                f"START_REPLICATION SLOT reader LOGICAL 0/0 ({options})".encode()
            )
            wait_until(lambda: senders(url) == 2, 20, "both of them")
            told = store.round_trip(None, None).standbys
            assert told
            assert (told.flushed, told.connected) == (0, 0)
        finally:
            archive.kill()


def test_a_login_that_cannot_see_them_is_told_what_it_lacks(primary: Postgres) -> None:
    """At the start: it would wait for ever."""
    url = migrated_database(primary)
    grant(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE carrier LOGIN PASSWORD 'x' IN ROLE outbox_relay")
        login = make_conninfo(url, user="carrier", password="x")

        with pytest.raises(SchemaError, match='GRANT pg_read_all_stats TO "carrier"'):
            Store.connect(login, "outbox", 5, fence=1)

        connection.execute("GRANT pg_read_all_stats TO carrier")
    with closing(Store.connect(login, "outbox", 5, fence=1)) as store:
        assert store.round_trip(None, None).standbys is not None


def senders(url: str) -> int:
    """How many are sent the log."""
    with psycopg.connect(url) as connection:
        row: Any = connection.execute("SELECT count(*) FROM pg_stat_replication").fetchone()
        return int(row[0])
