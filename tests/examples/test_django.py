"""The Django example: migrations create the tables, views send, the admin shows and manages."""

import json
import sys
from pathlib import Path

import psycopg
import pytest

from outbox_migrations import status, upgrade
from tests.examples.conftest import EXAMPLES, Run, environment
from tests.fixtures.programs import Program, RelayFactory
from tests.fixtures.rows import commit_rows, ids_in
from tests.fixtures.waiting import wait_until

ADMIN = Path(__file__).with_name("django_admin.py")


@pytest.fixture
def migrated(example: Run, empty_database: str) -> str:
    """A database that `manage.py migrate` made."""
    example("django", empty_database, "manage.py", "migrate")
    return empty_database


def test_migrate(example: Run, migrated: str) -> None:
    """`manage.py migrate` ends where `outbox-migrate up` does; nothing is left to migrate."""
    assert all(each.current for each in status(migrated))
    example("django", migrated, "manage.py", "makemigrations", "--check", "--dry-run")
    example("django", migrated, "manage.py", "check", "--fail-level=WARNING")


def test_migrate_back(example: Run, migrated: str) -> None:
    """`manage.py migrate outbox_migrations zero` takes all of it back."""
    example("django", migrated, "manage.py", "migrate", "outbox_migrations", "zero")
    assert all(each.found is None for each in status(migrated))
    example("django", migrated, "manage.py", "migrate")
    assert all(each.current for each in status(migrated))


def test_migrate_after_outbox_migrate(example: Run, empty_database: str) -> None:
    """A schema that is there already is left as it is."""
    upgrade(empty_database)
    commit_rows(empty_database)
    example("django", empty_database, "manage.py", "migrate")

    assert len(ids_in(empty_database, "pending")) == 1


def test_its_own_tests(example: Run, empty_database: str) -> None:
    """Pass under `manage.py test`, which has no pytest, with a broker that is down."""
    example("django", empty_database, "manage.py", "test", "--noinput")


def test_every_alembic_migration_is_wrapped() -> None:
    """A migration added to outbox_migrations has its Django migration, in order."""
    package = EXAMPLES.parent / "migrations" / "outbox_migrations"
    wrapped = sorted(
        path.stem.split("_", 1)[1] for path in (package / "django/migrations").glob("0*.py")
    )
    written = [
        path.stem for name in ("inbox", "outbox") for path in package.glob(f"{name}/*_0*.py")
    ]

    assert wrapped == sorted(written)


REQUESTS = """
import json
from django.test import Client
client = Client()
answer = client.post("/orders/", {"item": "tea"})
try:
    client.post("/orders/?reject", {"item": "gold"})
except ValueError:
    pass
print(json.dumps(answer.json()))
"""


def test_sends_with_the_broker_down(example: Run, migrated: str) -> None:
    """An order and its task are stored together; a rejected order leaves neither."""
    printed = example("django", migrated, "manage.py", "shell", "-v", "0", "-c", REQUESTS)
    task = json.loads(printed.splitlines()[-1])["task"]
    with psycopg.connect(migrated) as connection:
        orders = connection.execute("SELECT item FROM shop_order").fetchall()

    assert orders == [("tea",)]
    assert ids_in(migrated, "pending") == {task}


def test_admin(example: Run, migrated: str) -> None:
    """The admin shows every state to those who may; it retries, replays and discards."""
    commit_rows(migrated, message_ids=["e1", "s1", "s2"])
    with psycopg.connect(migrated) as connection:
        connection.execute(
            "INSERT INTO outbox.expiry (id, slot)"
            " SELECT id, slot FROM outbox.message WHERE message_id = 'e1'"
        )
        connection.execute("DELETE FROM outbox.ready")
        connection.execute(
            "INSERT INTO outbox.receipt (slot, span, ids)"
            " SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id)"
            " FROM outbox.message WHERE message_id LIKE 's_' GROUP BY slot"
        )
    commit_rows(migrated, message_ids=["p1", "p2"])
    commit_rows(migrated, message_ids=["d1", "d2"], available_in=3600)
    with psycopg.connect(migrated) as connection:
        connection.execute("UPDATE outbox.parked SET state = 'dead', last_error = 'no queue'")
    commit_rows(migrated, message_ids=["d2"])  # a retry has its task's id: what is dead goes alone
    example("django", migrated, str(ADMIN), PYTHONPATH=str(EXAMPLES / "django"))

    assert ids_in(migrated, "pending") == {"p2", "d1", "d2", "s1"}
    assert ids_in(migrated, "dead") == set()
    assert ids_in(migrated, "sent") == {"s2"}


def test_all_the_way(
    example: Run, migrated: str, valkey_url: str, relay: RelayFactory, tmp_path: Path
) -> None:
    """Ordered while no broker runs; once there is one, an ordinary worker sends the invoice."""
    example("django", migrated, "manage.py", "shell", "-v", "0", "-c", REQUESTS)
    drained = relay("run", "--drain", OUTBOX_DATABASE_URL=migrated, OUTBOX_BROKER_URL=valkey_url)
    assert drained.wait() == 0, drained.output()
    project = {"PYTHONPATH": str(EXAMPLES / "django"), "BROKER_URL": valkey_url}
    command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "--pool=solo"]
    worker = Program(command, tmp_path, environment(migrated) | project)
    try:
        with psycopg.connect(migrated, autocommit=True) as connection:
            query = "SELECT count(*) FROM shop_order WHERE invoiced"
            wait_until(lambda: connection.execute(query).fetchone() == (1,), 60, "the invoice")
    finally:
        worker.kill()
