"""Projects as they are: other vendors in tests, and URLs with the driver that SQLAlchemy wants."""

from types import SimpleNamespace

import pytest

from outbox_migrations import status
from outbox_migrations.django.operations import AlembicRevision


def test_other_vendors_are_left_alone() -> None:
    """A project whose tests run on SQLite migrates without a word: it is asked for nothing."""
    editor = SimpleNamespace(connection=SimpleNamespace(vendor="sqlite", alias="default"))

    AlembicRevision("outbox", "outbox_0001").database_forwards("outbox", editor, None, None)
    AlembicRevision("outbox", "outbox_0001").database_backwards("outbox", editor, None, None)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_the_driver_part_of_a_url_is_dropped(shared_database: str, driver: str) -> None:
    """The URL of an SQLAlchemy project serves as it is."""
    url = shared_database.replace("postgresql://", f"postgresql+{driver}://")

    assert all(each.current for each in status(url))
