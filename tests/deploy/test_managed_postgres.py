"""Nothing needs a superuser: the whole path on a server where nobody of ours is one."""

from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from outbox_migrations import grant, upgrade
from outbox_relay.core.claim import Claim, Turn
from outbox_relay.postgres.counting import Counter
from outbox_relay.postgres.store import Store
from servers import Postgres
from tests.fixtures.postgres import OwnPostgres
from tests.fixtures.rows import commit_rows, states

PASSWORD = "p"


@pytest.fixture
def managed(own_postgres: OwnPostgres) -> Postgres:
    """A server whose administrator may create databases and roles, and is no superuser."""
    server = own_postgres()
    with psycopg.connect(server.create_database(), autocommit=True) as superuser:
        superuser.execute("CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'p'")
    return server


def as_login(url: str, login: str) -> str:
    """The same database for another login."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}:{PASSWORD}@{parts.hostname}:{parts.port}"))


def test_a_managed_service_is_enough(managed: Postgres) -> None:
    """Its master user migrates and grants; logins with the three roles do the rest."""
    superuser = managed.create_database()
    name = urlsplit(superuser).path.removeprefix("/")
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" OWNER TO master'.encode())
    master = as_login(superuser, "master")

    upgrade(master)
    grant(master)
    with psycopg.connect(master) as connection:
        for role in ("producer", "relay", "inspector"):
            connection.execute(
                f"CREATE ROLE my_{role} LOGIN PASSWORD '{PASSWORD}' IN ROLE outbox_{role}".encode()
            )
    commit_rows(as_login(superuser, "my_producer"), 3)
    store = Store.connect(as_login(superuser, "my_relay"), "outbox", statement_timeout=10)
    claimed = store.round_trip(None, Turn([], 0, 10, 1, 60.0)).rows
    claim = store.round_trip(Claim(claimed, 1, 0.0), None).fetched
    assert claim is not None
    store.round_trip(None, Turn(claim.messages, 0, 0, 2, 60.0))
    store.close()
    counter = Counter.connect(as_login(superuser, "my_relay"), "outbox", statement_timeout=10)
    assert counter.counts().failures == ()
    counter.close()
    with psycopg.connect(as_login(superuser, "my_relay")) as connection:
        connection.execute("SELECT outbox.purge('1 day')")

    assert states(superuser) == {"pending": 0, "scheduled": 0, "sent": 3, "dead": 0}
    with psycopg.connect(as_login(superuser, "my_inspector")) as connection:
        assert connection.execute("SELECT pending FROM outbox.stats").fetchone() == (0,)
