"""Databases with several schemas, each an outbox, and one relay process that serves them all."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from outbox_migrations import upgrade
from servers import Postgres
from tests.fixtures.broker import Broker
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.rows import insert_rows
from tests.fixtures.waiting import wait_until

SCHEMAS = ("tenant_1", "tenant_2", "tenant_3")
DEADLINE = 60.0

Serve = Callable[..., Relay]


@dataclass(frozen=True, slots=True)
class Tenant:
    """An outbox, whose messages go to a queue of their own."""

    url: str
    schema: str
    queue: str

    def commit(self, count: int = 1, **columns: Any) -> list[str]:
        """Commit messages whose body is their id."""
        with psycopg.connect(self.url) as connection:
            return self.insert(connection, count, **columns)

    def insert(
        self, connection: psycopg.Connection[Any], count: int = 1, **columns: Any
    ) -> list[str]:
        """Insert them in a transaction of the caller's."""
        declare = f'[{{"kind": "queue", "name": "{self.queue}", "routing_key": "{self.queue}"}}]'
        where = {"declare": declare, "routing_key": self.queue, "schema": self.schema}
        ids = insert_rows(connection, count, **where, **columns)
        connection.execute(
            f"UPDATE {self.schema}.message SET body = convert_to(message_id, 'UTF8')"
            " WHERE message_id = ANY (%s)".encode(),
            [ids],
        )
        return ids

    def sent(self) -> set[str]:
        """The message ids that are confirmed."""
        with psycopg.connect(self.url) as connection:
            rows = connection.execute(f"SELECT message_id FROM {self.schema}.sent".encode())
            return {str(row[0]) for row in rows.fetchall()}

    def wait_sent(self, ids: list[str], timeout: float = DEADLINE) -> None:
        """Wait until all these are confirmed."""
        wait_until(lambda: self.sent() >= set(ids), timeout, f"{len(ids)} sent of {self.schema}")

    def rung(self) -> bool:
        """Whether somebody is rung when messages are committed."""
        query = f"""
            SELECT EXISTS (SELECT FROM {self.schema}.bell() b, pg_locks l
            WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND (l.classid::bigint << 32 | l.objid::bigint) = b.bell)
        """
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query.encode()).fetchone()
        return row == (True,)


def arrived(broker: Broker, tenant: Tenant) -> Counter[str]:
    """Take everything out of its queue: message ids, and how often each was there."""
    return Counter(message.body.decode() for message in broker.take_all(tenant.queue))


def tenants_of(url: str, schemas: tuple[str, ...] = SCHEMAS) -> list[Tenant]:
    """The outboxes of a database."""
    database = url.rpartition("/")[2][:8]
    return [Tenant(url, schema, f"{database}-{schema}") for schema in schemas]


@pytest.fixture(scope="session")
def tenants_template(postgres: Postgres) -> str:
    """The name of a database with a few outboxes, to be cloned."""
    url = postgres.create_database("tenants")
    for schema in SCHEMAS:
        upgrade(url, schema=schema, component="outbox")
    return "tenants"


@pytest.fixture
def databases(postgres: Postgres, tenants_template: str) -> Iterator[list[list[Tenant]]]:
    """Two databases, each with a few outboxes."""
    urls = [postgres.create_database(template=tenants_template) for _ in range(2)]
    yield [tenants_of(url) for url in urls]
    for url in urls:
        postgres.drop_database(url.rpartition("/")[2])


@pytest.fixture
def serve(relay: RelayFactory, broker: Broker, tmp_path: Path) -> Serve:
    """Start a relay for the databases of these URLs, each line with what is added to it."""

    def start(*lines: str, **environment: str) -> Relay:
        path = tmp_path / "outboxes"
        path.write_text("".join(f"{line}\n" for line in lines))
        own = {"OUTBOX_DATABASES_FILE": str(path), "OUTBOX_BROKER_URL": broker.url}
        return relay(**own, **environment)

    return start
