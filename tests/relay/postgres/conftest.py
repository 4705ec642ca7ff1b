"""Stores on a real Postgres."""

from collections.abc import Iterator

import pytest

from outbox_relay.postgres.store import Store
from tests.relay.postgres.steps import OpenStore


@pytest.fixture
def open_store(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    """Connect a store to the test's database, as often as is wanted."""
    own = "database" in request.fixturenames
    database = request.getfixturevalue("database" if own else "emptied_database")
    opened: list[Store] = []

    def connect() -> Store:
        opened.append(Store.connect(database, "outbox", statement_timeout=5))
        return opened[-1]

    yield connect
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """One store."""
    return open_store()
