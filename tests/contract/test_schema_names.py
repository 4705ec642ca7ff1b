"""A schema's name is the one identifier users choose: all components take the same ones, and quote.

Everything else in their SQL is a constant or a parameter.
"""

from contextlib import suppress

import pytest
from celery import Celery
from hypothesis import example, given
from hypothesis import strategies as st

from celery_outbox.errors import InvalidSetting as ProducerRefuses
from celery_outbox.settings import schema as producers_schema
from outbox_migrations import upgrade
from outbox_migrations.components import Component
from outbox_migrations.errors import InvalidSetting as MigrationsRefuse
from outbox_relay.configuration import from_environment
from outbox_relay.core.claim import Turn
from outbox_relay.errors import SettingsError
from outbox_relay.postgres.counting import Counter
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows

#: Words of SQL, and a name as long as Postgres has them.
ODD = ["select", "user", "pg", "_", "o" * 63]

app = Celery("shop", set_as_current=False, broker="memory://")


def taken_by(name: str) -> set[str]:
    """Which components accept the name as it is."""
    taken = set()
    with suppress(ProducerRefuses):
        app.conf.outbox_schema = name
        if producers_schema(app) == name:
            taken.add("producer")
    with suppress(MigrationsRefuse):
        Component("outbox", name)
        taken.add("migrations")
    with suppress(SettingsError):
        environment = {"OUTBOX_DATABASE_URL": "dbname=x", "OUTBOX_SCHEMA": name}
        if from_environment(environment, need_broker=False).schema == name:
            taken.add("relay")
    return taken


@given(st.text(min_size=1, max_size=70) | st.from_regex(r"[a-z_\"';. ]{1,10}", fullmatch=True))
@example('outbox"; DROP SCHEMA public; --')
@example("Outbox")
@example("outbox\n")
@example("o" * 64)
@example("\N{FULLWIDTH LATIN SMALL LETTER O}utbox")
def test_all_components_take_the_same_names(name: str) -> None:
    """Lower-case letters, digits and underscores; whatever could end a quote is refused by all."""
    plain = name.isascii() and name.replace("_", "a").isalnum() and name == name.lower()
    good = plain and not name[0].isdigit() and len(name) <= 63

    assert taken_by(name) == ({"producer", "migrations", "relay"} if good else set())


@pytest.mark.parametrize("name", ODD)
def test_odd_names_work(empty_database: str, name: str) -> None:
    """Every statement quotes the name, words of SQL included."""
    upgrade(empty_database, schema=name, component="outbox")
    commit_rows(empty_database, 2, schema=name)
    store = Store.connect(empty_database, name, 10)

    claimed = store.round_trip(None, Turn([], 0, 10, 1, 10.0)).rows

    assert len(claimed) == 2
    store.close()
    counter = Counter.connect(empty_database, name, 10)
    assert counter.stats().pending == 2
    counter.close()
