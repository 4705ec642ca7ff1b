"""A database that was made without an encoding, as in a container without a locale, will do."""

from collections.abc import Iterator

import psycopg
import pytest

from outbox_migrations import status, upgrade
from servers import Postgres
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states


@pytest.fixture
def ascii_database(postgres: Postgres) -> Iterator[str]:
    """The URL of a database with the encoding SQL_ASCII, which is none."""
    name = "without_encoding"
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE without_encoding TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
        )
    yield postgres.dsn(name)
    postgres.drop_database(name)


def test_migrations_and_relay_work(
    ascii_database: str, relay: RelayFactory, broker: Broker
) -> None:
    """What was written as UTF-8 arrives as it was."""
    upgrade(ascii_database)
    assert all(each.current for each in status(ascii_database))
    broker.declare("celery")
    commit_rows(f"{ascii_database}?client_encoding=UTF8", headers='{"argsrepr": "(\'Käse\',)"}')

    drained = relay(
        "run", "--drain", OUTBOX_DATABASE_URL=ascii_database, OUTBOX_BROKER_URL=broker.url
    )

    assert drained.wait() == 0, drained.output()
    assert states(ascii_database)["sent"] == 1
    (received,) = broker.take_all("celery")
    assert received.headers["argsrepr"] == "('Käse',)"
