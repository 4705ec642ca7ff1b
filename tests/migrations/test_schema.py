"""The schema of today can be read in `schema/`, and is what the migrations make."""

import re
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from outbox_migrations import sql, upgrade
from outbox_migrations.schema_files import PACKAGE, filled, today
from servers import Postgres
from tests.migrations.test_commands import catalogue


def test_the_migrations_lead_to_the_schema_of_today(
    postgres: Postgres, empty_database: str
) -> None:
    """Whoever changes `schema/` adds the migration that brings older databases there."""
    read = postgres.create_database()
    with psycopg.connect(read) as connection:
        for component in ("outbox", "inbox"):
            connection.execute(f"CREATE SCHEMA {component}".encode())
            connection.execute(filled(today(component), component, f'"{component}"').encode())
    upgrade(empty_database)
    made = [
        row
        for row in catalogue(empty_database, "outbox", "inbox")
        if ".schema_version" not in row[1]
    ]

    assert catalogue(read, "outbox", "inbox") == made


@pytest.mark.parametrize("text", [sql(), today("outbox") + today("inbox")], ids=["sql", "schema"])
def test_every_object_is_defined_once(text: str) -> None:
    """Nobody has to find out which of several definitions is in force."""
    found = Counter(
        re.findall(
            r'^(?:CREATE|ALTER) (?:OR REPLACE )?((?:VIEW|FUNCTION|TRIGGER|INDEX) "?\w+"?\.?\w*'
            r"(?: AFTER \w+ ON [^ \n]+)?)",
            text,
            re.M,
        )
    )

    assert {name: times for name, times in found.items() if times > 1} == {}
    assert "VIEW" in " ".join(found)


def test_every_comment_stands_beside_its_object() -> None:
    """A file explains what it creates, and nothing else."""
    for file in sorted((PACKAGE / "schema").rglob("*.sql")):
        text = file.read_text(encoding="utf-8")
        explained = set(re.findall(r"^COMMENT ON (?:TABLE|VIEW|FUNCTION) (\S+)", text, re.M))
        created = set(re.findall(r"^CREATE (?:TABLE|VIEW|FUNCTION) ([\w.]+)", text, re.M))

        assert explained == {name for name in created if "message_" not in name}, file.name


def test_no_migration_imports_another() -> None:
    """A version stays what it was, whatever becomes of those around it."""
    for file in [*PACKAGE.glob("outbox/*.py"), *PACKAGE.glob("inbox/*.py")]:
        imported = re.findall(r"^(?:from|import) (\S+)", file.read_text(encoding="utf-8"), re.M)

        assert not [
            name for name in imported if re.search(r"(outbox|inbox)_\d|\.outbox|\.inbox", name)
        ]


def test_only_the_name_of_the_schema_is_replaced() -> None:
    """Prose keeps its words; names, search paths and rights follow the schema."""
    text = (
        "CREATE TABLE outbox.ready; -- of the outbox. Run outbox-migrate\n"
        "SET search_path = outbox, pg_temp; IN SCHEMA outbox FROM"
    )

    assert filled(text, "outbox", '"shop"') == (
        'CREATE TABLE "shop".ready; -- of the outbox. Run outbox-migrate\n'
        'SET search_path = "shop", pg_temp; IN SCHEMA "shop" FROM'
    )


def test_the_files_read_as_sql_without_help() -> None:
    """No placeholder stands in them: psql and editors take them as they are."""
    for file in sorted(Path(PACKAGE / "schema").rglob("*.sql")):
        assert not re.search(r"\{(outbox|inbox)\}", file.read_text(encoding="utf-8"))
