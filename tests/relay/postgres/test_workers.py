"""What the relay reads of workers, and of their queues, where the inbox is in another database."""

from contextlib import closing

import psycopg
import pytest

from outbox_migrations import upgrade
from outbox_relay.configuration import from_environment
from outbox_relay.errors import StoreLost
from outbox_relay.postgres.home import Home
from outbox_relay.postgres.workers import Workers
from outbox_relay.settings import Settings
from tests.fixtures.rows import commit_rows

AWAY = "host=127.0.0.1 port=1"


def settings_of(database: str, inbox: str) -> Settings:
    """Outbox here, inbox there."""
    return from_environment(
        {
            "OUTBOX_DATABASE_URL": database,
            "OUTBOX_INBOX_URL": inbox,
            "OUTBOX_BROKER_URL": "amqp://x",
        }
    )


@pytest.fixture
def inbox(empty_database: str) -> str:
    """Another database, with a worker in it."""
    upgrade(empty_database, component="inbox")
    with psycopg.connect(empty_database) as connection:
        connection.execute(
            "SELECT inbox.announce('w@host', json_build_object("
            "'queues', ARRAY['mail'], 'tasks', ARRAY['shop.mail']), 60)"
        )
    return empty_database


def test_what_workers_know_is_read_there_and_messages_wait_here(database: str, inbox: str) -> None:
    """The guard works across two databases."""
    [id] = commit_rows(database)
    with psycopg.connect(database) as connection:
        connection.execute(
            "WITH held AS (DELETE FROM outbox.ready RETURNING id, slot)"
            " INSERT INTO outbox.parked (id, slot, state, available_at, last_error)"
            " SELECT id, slot, 'retry', now() + interval '1 hour', 'unknown task: x' FROM held"
        )

    with closing(Workers.open(settings_of(database, inbox))) as workers:
        assert workers.known() == {"mail": frozenset({"shop.mail"})}
        assert (workers.fingerprint() or "").startswith("w@host ")
        assert workers.wake() == 1

    with psycopg.connect(database) as connection:
        due = "SELECT message_id FROM outbox.pending WHERE available_at <= now()"
        assert connection.execute(due).fetchall() == [(id,)]


def test_their_queues_are_where_dead_letters_may_lie(database: str, inbox: str) -> None:
    """While that database is away, the queues of the messages are known still."""
    commit_rows(database)

    with Home.open(settings_of(database, inbox)) as home:
        assert home.queues() == ["celery.dead", "mail.dead"]
    with Home.open(settings_of(database, AWAY)) as home:
        assert home.queues() == ["celery.dead"]


def test_an_inbox_that_is_away_is_an_outage(database: str) -> None:
    """It is waited for: what was known last holds meanwhile."""
    with pytest.raises(StoreLost):
        Workers.open(settings_of(database, AWAY))
