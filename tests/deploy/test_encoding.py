"""A database that was made with another encoding, or none, as in a container, will do."""

from collections.abc import Callable, Iterator
from typing import LiteralString

import psycopg
import pytest

from outbox_migrations import status, upgrade
from servers import Postgres
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states

Encoded = Callable[[LiteralString], str]


@pytest.fixture
def encoded(postgres: Postgres) -> Iterator[Encoded]:
    """Make a database with an encoding and return its URL; SQL_ASCII is none."""
    name = "otherwise_encoded"

    def make(encoding: LiteralString) -> str:
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
            )
        url = postgres.dsn(name)
        upgrade(url)
        assert all(each.current for each in status(url))
        return url

    yield make
    postgres.drop_database(name)


def test_migrations_and_relay_work(encoded: Encoded, relay: RelayFactory, broker: Broker) -> None:
    """What was written as UTF-8 arrives as it was."""
    ascii_database = encoded("SQL_ASCII")
    broker.declare("celery")
    commit_rows(f"{ascii_database}?client_encoding=UTF8", headers='{"argsrepr": "(\'Käse\',)"}')

    drained = relay(
        "run", "--drain", OUTBOX_DATABASE_URL=ascii_database, OUTBOX_BROKER_URL=broker.url
    )

    assert drained.wait() == 0, drained.output()
    assert states(ascii_database)["sent"] == 1
    (received,) = broker.take_all("celery")
    assert received.headers["argsrepr"] == "('Käse',)"


def test_a_reason_that_the_database_could_not_hold_is_written_otherwise(
    encoded: Encoded, relay: RelayFactory, broker: Broker
) -> None:
    """LATIN1 has not every character that a row's JSON can name: its row is dead all the same."""
    database = encoded("LATIN1")
    broker.declare("celery")
    commit_rows(database, properties='{"\\u540d": 1}')
    commit_rows(database)

    drained = relay("run", "--drain", OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)

    assert drained.wait() == 0, drained.output()
    assert states(database) == {"pending": 0, "scheduled": 0, "sent": 1, "dead": 1}
    with psycopg.connect(database) as connection:
        reason = connection.execute("SELECT last_error FROM outbox.dead").fetchone()
    assert reason == ("invalid: properties has '\\u540d', which AMQP does not know",)
