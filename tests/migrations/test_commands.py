"""Up, down, status and sql leave a database migrated or as it was, however often they run."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from outbox_migrations import (
    DatabaseUnreachable,
    InvalidSetting,
    MigrationError,
    downgrade,
    sql,
    status,
    upgrade,
)
from outbox_migrations.database import transaction
from servers import Postgres
from servers.postgres import find_binaries
from tests.fixtures.rows import insert_rows

CATALOGUE = """
SELECT 'column', c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = ANY (%(schemas)s::regnamespace[])
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid),
       convalidated, NULL, NULL
FROM pg_constraint WHERE connamespace = ANY (%(schemas)s::regnamespace[])
UNION ALL SELECT 'index', indrelid::regclass::text, indexrelid::regclass::text,
       pg_get_indexdef(indexrelid), indisunique, NULL, NULL
FROM pg_index JOIN pg_class c ON c.oid = indexrelid
WHERE c.relnamespace = ANY (%(schemas)s::regnamespace[])
UNION ALL SELECT 'function', p.oid::regprocedure::text, p.prosrc, p.proconfig::text,
       p.prosecdef, p.proacl::text, obj_description(p.oid)
FROM pg_proc p WHERE pronamespace = ANY (%(schemas)s::regnamespace[])
UNION ALL SELECT 'view', c.oid::regclass::text, pg_get_viewdef(c.oid), c.reloptions::text,
       NULL, NULL, obj_description(c.oid)
FROM pg_class c WHERE relnamespace = ANY (%(schemas)s::regnamespace[]) AND relkind IN ('v', 'r')
ORDER BY 1, 2, 3
"""


def catalogue(url: str, *schemas: str) -> list[tuple[Any, ...]]:
    """Everything the database knows about the schemas: what makes two of them equal."""
    with psycopg.connect(url) as connection:
        return connection.execute(CATALOGUE, {"schemas": list(schemas)}).fetchall()


def schemas(url: str) -> set[str]:
    """The schemas of the database that are not Postgres's own."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$|^public$'"
        )
        return {name for (name,) in rows}


def test_migrating_twice_changes_nothing(empty_database: str) -> None:
    """A deployment may run it every time."""
    upgrade(empty_database)
    first = catalogue(empty_database, "outbox", "inbox")

    upgrade(empty_database)

    assert catalogue(empty_database, "outbox", "inbox") == first
    assert all(each.current for each in status(empty_database))


def test_down_and_up_again_is_where_it_was(empty_database: str) -> None:
    """Nothing is left behind that the next migration would stumble over."""
    upgrade(empty_database)
    first = catalogue(empty_database, "outbox", "inbox")

    downgrade(empty_database)
    assert [each.found for each in status(empty_database)] == [None, None]
    downgrade(empty_database)
    upgrade(empty_database)

    assert catalogue(empty_database, "outbox", "inbox") == first


def test_down_leaves_nothing_but_the_record(empty_database: str) -> None:
    """No table, view or function of ours survives it."""
    upgrade(empty_database)

    downgrade(empty_database)

    with psycopg.connect(empty_database) as connection:
        left = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace IN"
            " (SELECT oid FROM pg_namespace WHERE nspname IN ('outbox', 'inbox'))"
            " AND relkind IN ('r', 'p', 'v')"
        ).fetchall()
    assert {name for (name,) in left} <= {"schema_version"}


def test_a_database_never_migrated_says_so(empty_database: str) -> None:
    """And asking changes nothing about it."""
    found = status(empty_database)

    assert [(each.component.name, each.found, each.current) for each in found] == [
        ("outbox", None, False),
        ("inbox", None, False),
    ]
    assert schemas(empty_database) == set()


@pytest.mark.parametrize(("component", "made"), [("outbox", "outbox"), ("inbox", "inbox")])
def test_each_component_stands_alone(empty_database: str, component: Any, made: str) -> None:
    """Workers' and producers' databases need not be the same."""
    upgrade(empty_database, component=component)

    assert schemas(empty_database) == {made}
    downgrade(empty_database, component=component)
    assert status(empty_database, component=component)[0].found is None


def test_the_printed_sql_is_what_up_does(postgres: Postgres, empty_database: str) -> None:
    """A person who applies it by hand gets the very same schema, and `status` believes it."""
    by_hand = postgres.create_database()
    upgrade(empty_database)

    with psycopg.connect(by_hand) as connection:
        connection.execute(sql().encode())

    assert catalogue(by_hand, "outbox", "inbox") == catalogue(empty_database, "outbox", "inbox")
    assert all(each.current for each in status(by_hand))


def test_the_outbox_may_have_another_name(empty_database: str) -> None:
    """Several outboxes live in one database without seeing each other."""
    upgrade(empty_database, schema="shop_outbox", component="outbox")
    upgrade(empty_database, component="outbox")

    with psycopg.connect(empty_database) as connection:
        insert_rows(connection, 3, schema="shop_outbox")
        connection.execute("SELECT shop_outbox.enqueue('shop.bill')")
        query = SQL("SELECT pending FROM {}.stats")
        counts = [
            connection.execute(query.format(Identifier(name))).fetchone()
            for name in ("shop_outbox", "outbox")
        ]
    assert counts == [(4,), (0,)]


@pytest.mark.parametrize(
    "schema", ["", "Outbox", "out-box", "1box", "o" * 64, 'x"; DROP SCHEMA public; --', "ö", "a\n"]
)
def test_a_name_that_needs_quoting_is_refused(empty_database: str, schema: str) -> None:
    """Before anything is done, by every command."""
    for command in (upgrade, downgrade, status):
        with pytest.raises(InvalidSetting, match="schema"):
            command(empty_database, schema=schema)
    with pytest.raises(InvalidSetting, match="schema"):
        sql(schema)
    assert schemas(empty_database) == set()


def test_a_failed_migration_leaves_no_trace(empty_database: str) -> None:
    """All or nothing: what stood in the way is named, and the rest was never there."""
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA outbox")
        connection.execute("CREATE TABLE outbox.parked (mine text)")
    before = catalogue(empty_database, "outbox")

    with pytest.raises(MigrationError, match="parked"):
        upgrade(empty_database, component="outbox")

    assert catalogue(empty_database, "outbox") == before


def test_a_migration_does_not_queue_behind_a_lock_for_ever(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up instead of keeping every producer waiting behind it."""
    monkeypatch.setattr("outbox_migrations.database.LOCK_TIMEOUT", "50ms")
    with psycopg.connect(database) as reader:
        reader.execute("SELECT FROM outbox.message")

        with pytest.raises(MigrationError):
            downgrade(database, component="outbox")

    assert status(database)[0].current


@pytest.mark.parametrize(("asked", "given"), [("", "10"), ("connect_timeout=3", "3")])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_url_says_how_long_a_host_may_take(
    empty_database: str, driver: str, asked: str, given: str
) -> None:
    """Ten seconds count only where it says nothing, whichever driver reads it."""
    scheme, _, rest = empty_database.partition("://")
    url = f"{scheme}+{driver}://{rest}{'&' if '?' in rest else '?'}{asked}".rstrip("?&")

    with transaction(url, "it failed") as connection:
        session: Any = connection.connection.dbapi_connection
        parts = (
            session.info.get_parameters() if driver == "psycopg" else session.get_dsn_parameters()
        )

    assert parts["connect_timeout"] == given


def test_nobody_there_is_unreachable() -> None:
    """One sentence, and no password in it."""
    with pytest.raises(DatabaseUnreachable) as failed:
        upgrade("postgresql://postgres:hunter2@127.0.0.1:1/postgres")

    assert "hunter2" not in str(failed.value)


def _other_binaries() -> list[Path]:
    """The Postgres installations of this machine beside the one all other tests use."""
    own = find_binaries()
    wheel = own.parent.parent.glob("pginstall*/bin")
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    return sorted(folder for folder in {*wheel, *debian} - {own} if (folder / "initdb").exists())


@pytest.mark.parametrize("binaries", _other_binaries(), ids=lambda folder: folder.parent.name)
def test_other_versions_of_postgres_do(binaries: Path, tmp_path_factory: Any) -> None:
    """Each one at hand takes every migration and back, and the whole life of a message between."""
    server = Postgres(tmp_path_factory.mktemp("postgres"), binaries=binaries)
    try:
        url = server.start().create_database()
        upgrade(url)
        with psycopg.connect(url) as connection:
            insert_rows(connection, 3)
            insert_rows(connection, available_in=3600)
            connection.execute("SELECT outbox.enqueue('shop.bill')")
            connection.execute("DELETE FROM outbox.ready WHERE id = 1")
            connection.execute(
                "INSERT INTO outbox.receipt (slot, span, ids)"
                " SELECT slot, '[1,1]', '{1}' FROM outbox.message WHERE id = 1"
            )
            connection.execute("SELECT outbox.purge('0', true)")
            stats = connection.execute("SELECT pending, scheduled, dead FROM outbox.stats")
            assert stats.fetchone() == (3, 1, 0)
        downgrade(url)
        upgrade(url)
    finally:
        server.discard()
