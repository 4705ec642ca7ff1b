"""One session that looks after many schemas of a real database."""

import os
from collections.abc import Iterator

import psycopg
import pytest

from outbox_migrations import upgrade
from outbox_relay.errors import SchemaError
from outbox_relay.postgres import lookout as module
from outbox_relay.postgres.lookout import Glance, Lookout
from tests.fixtures.postgres import OwnPostgres
from tests.relay.many.tenants import Tenant, tenants_of

NOTHING = Glance(work=False, due=None, waits=False)
SOON = 10.0


@pytest.fixture
def tenants(databases: list[list[Tenant]]) -> list[Tenant]:
    """The outboxes of one database."""
    return databases[0]


@pytest.fixture
def lookout(tenants: list[Tenant]) -> Iterator[Lookout]:
    """A lookout for all of them."""
    lookout = Lookout.connect(tenants[0].url, 5, doorbell="auto", name="test")
    for tenant in tenants:
        lookout.add(tenant.schema)
    yield lookout
    lookout.close()


@pytest.fixture
def never() -> Iterator[int]:
    """A file descriptor on which nothing comes."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def look(lookout: Lookout, *schemas: str) -> tuple[dict[str, Glance], dict[str, str]]:
    """What is seen, and who could not be asked."""
    broken: dict[str, str] = {}
    return lookout.look(schemas, broken.__setitem__), broken


def test_it_sees_who_has_work_and_what_is_due(lookout: Lookout, tenants: list[Tenant]) -> None:
    """All in one look; who is not asked for is not seen."""
    tenants[0].commit()
    tenants[1].commit(available_in=60)
    first, second, third = (tenant.schema for tenant in tenants)
    seen, broken = look(lookout, first, second)

    assert seen[first].work
    assert not seen[second].work
    assert 50 < (seen[second].due or 0) <= 60
    assert third not in seen
    assert not broken
    assert look(lookout, third) == ({third: NOTHING}, {})


def test_few_looks_are_kept_prepared(
    lookout: Lookout, tenants: list[Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was prepared for tenants that have gone is not kept, and looks stay right."""
    monkeypatch.setattr(module, "MAX_GLANCES", 2)
    first, *others = (tenant.schema for tenant in tenants)
    for _ in range(3):
        for name in (first, *others):
            assert lookout.look_singly([name], fail) == {name: NOTHING}
        assert look(lookout, first) == ({first: NOTHING}, {})
    lookout.drop(others[0])

    assert look(lookout, first, others[1]) == ({first: NOTHING, others[1]: NOTHING}, {})


def fail(schema: str, reason: str) -> None:
    """Nobody is broken."""
    raise AssertionError(f"{schema}: {reason}")


def test_it_is_rung_for_each(lookout: Lookout, tenants: list[Tenant], never: int) -> None:
    """And says for which."""
    names = [tenant.schema for tenant in tenants]
    assert lookout.lie_down(names) == set(names)
    tenants[1].commit()
    assert lookout.wait(SOON, never) == {tenants[1].schema}
    lookout.get_up([tenants[1].schema])
    assert not tenants[1].rung()
    assert tenants[0].rung()


def test_it_is_not_rung_for_what_an_open_transaction_has_made(
    lookout: Lookout, tenants: list[Tenant]
) -> None:
    """That one says so: it cannot lie down before that is over. For the others it can."""
    names = [tenant.schema for tenant in tenants]
    with psycopg.connect(tenants[0].url) as connection:
        tenants[0].insert(connection)
        assert lookout.lie_down(names) == set(names[1:])
    assert lookout.lie_down(names) == set(names)


def test_another_session_takes_the_place_of_one_that_has_ended(
    lookout: Lookout, tenants: list[Tenant]
) -> None:
    """As long as both are there, one is rung."""
    name = tenants[0].schema
    assert lookout.lie_down([name]) == {name}
    other = Lookout.connect(tenants[0].url, 5, doorbell="auto", name="test")
    other.add(name)
    assert other.lie_down([name]) == set()
    assert other.another_watches(name)
    lookout.get_up([name])
    assert other.lie_down([name]) == {name}
    other.close()


def test_a_schema_that_is_gone_blinds_it_for_no_other(
    lookout: Lookout, tenants: list[Tenant]
) -> None:
    """It is named, with the reason."""
    gone, *others = [tenant.schema for tenant in tenants]
    with psycopg.connect(tenants[0].url) as connection:
        connection.execute(f"DROP SCHEMA {gone} CASCADE".encode())
    seen, broken = look(lookout, gone, *others)

    assert seen == dict.fromkeys(others, NOTHING)
    assert "outbox-migrate up" in broken[gone]


def test_a_schema_that_was_made_anew_is_told(lookout: Lookout, tenants: list[Tenant]) -> None:
    """Its locks are others: who is to be rung for it has to add it again."""
    name, url = tenants[0].schema, tenants[0].url
    assert look(lookout, name)[1] == {}
    with psycopg.connect(url) as connection:
        connection.execute(f"DROP SCHEMA {name} CASCADE".encode())
    upgrade(url, schema=name, component="outbox")
    assert look(lookout, name) == ({}, {name: "its tables were made anew"})
    lookout.drop(name)
    lookout.add(name)

    assert lookout.lie_down([name]) == {name}
    assert tenants_of(url)[0].rung()


def test_a_locked_schema_is_given_up_soon(lookout: Lookout, tenants: list[Tenant]) -> None:
    """The others are seen."""
    locked, *others = [tenant.schema for tenant in tenants]
    with psycopg.connect(tenants[0].url) as connection:
        connection.execute(f"LOCK TABLE {locked}.ready IN ACCESS EXCLUSIVE MODE".encode())
        seen, broken = look(lookout, locked, *others)

    assert seen.keys() == {*others}
    assert "lock timeout" in broken[locked]


def test_what_is_no_outbox_is_not_taken_in(lookout: Lookout) -> None:
    """It says what to do."""
    with pytest.raises(SchemaError, match="outbox-migrate up"):
        lookout.add("nothing_there")


def test_where_nobody_can_be_rung_it_says_why(own_postgres: OwnPostgres) -> None:
    """As a relay alone does."""
    server = own_postgres({"max_prepared_transactions": "2"})
    url = server.create_database()
    upgrade(url, schema="tenant_1", component="outbox")
    lookout = Lookout.connect(url, 5, doorbell="auto", name="test")
    lookout.add("tenant_1")

    assert "max_prepared_transactions" in lookout.deaf
    assert lookout.lie_down(["tenant_1"]) == set()
    lookout.close()
