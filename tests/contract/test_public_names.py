"""What users, triggers and programs rely on by name is added to, never renamed or taken away.

Metrics are held by `tests/relay/observe`, rights by `tests/migrations/test_grants.py`.
"""

import psycopg
import pytest

import celery_inbox
import celery_outbox
from outbox_migrations.grants import grant
from outbox_relay.cli.main import COMMANDS
from outbox_relay.configuration import TABLE

LISTED = ["id", "message_id", "task", "exchange", "routing_key", "args", "kwargs", "created_at"]
UNSENT = [*LISTED, "available_at", "attempts", "last_error"]
RELATIONS = {
    "outbox.message": [
        *("id", "message_id", "task", "exchange", "routing_key", "headers", "properties", "body"),
        *("content_type", "content_encoding", "created_at"),
    ],
    "outbox.pending": UNSENT,
    "outbox.scheduled": UNSENT,
    "outbox.dead": UNSENT,
    "outbox.sent": [*LISTED, "sent_at"],
    "outbox.stats": ["pending", "scheduled", "dead", "oldest_pending_age"],
    "outbox.missing": [
        *("id", "message_id", "task", "exchange", "routing_key", "created_at", "sent_at"),
        *("outcome", "error", "worker", "noted_at"),
    ],
    "outbox.route": ["exchange", "routing_key", "waiting", "is_held", "held", "held_by"],
    "outbox.paused": [
        *("target", "kind", "pattern", "reason", "since", "until", "who", "messages"),
    ],
    "outbox.rate": [
        *("target", "kind", "pattern", "per_second", "burst", "reason", "since", "who", "messages"),
    ],
    "inbox.receipt": [
        *("message_id", "task", "outcome", "error", "worker", "received_at", "finished_at"),
    ],
    "inbox.processed": ["message_id", "task", "processed_at"],
}
#: Calls by position and by name, as in people's triggers and scripts.
CALLS = [
    "outbox.enqueue('shop.bill')",
    "outbox.enqueue('shop.bill', '[42]', '{\"a\": 1}', 'celery', now(), 'task-1')",
    "outbox.enqueue(task => 'shop.bill', args => '[]', kwargs => '{}', queue => 'q', eta => now(),"
    " task_id => 'task-2', expires => now(), priority => 5, ordering_key => 'o', dedup_key => 'd')",
    "outbox.retry(message_id => 'task-1')",
    "outbox.discard(message_id => 'task-1')",
    "outbox.cancel(message_id => 'task-1')",
    "outbox.replay(since => now() - interval '1 hour', until => now(), task => 'shop.bill')",
    "outbox.replay(now() - interval '1 hour')",
    "outbox.pause(queue => 'mail', reason => 'down', until => now() + interval '1 hour')",
    "outbox.pause(exchange => 'events')",
    "outbox.pause(task => 'shop.*', who => 'ana')",
    "outbox.pause(everything => true)",
    "outbox.set_rate(10, burst => 50, queue => 'mail', reason => 'their limit')",
    "outbox.set_rate(NULL, queue => 'mail')",
    "outbox.resume(queue => 'mail')",
    "outbox.resume(everything => true)",
    "outbox.purge(interval '7 days')",
    "outbox.version()",
    "inbox.purge()",
    'inbox.announce(\'w@host\', \'{"queues": ["celery"], "tasks": ["shop.bill"]}\', 30)',
    "inbox.beat('w@host', 30)",
    "inbox.leave('w@host')",
    "inbox.version()",
]


@pytest.mark.parametrize("relation", RELATIONS)
def test_columns(database: str, relation: str) -> None:
    """Every promised column is there, whatever else is."""
    with psycopg.connect(database) as connection:
        connection.execute(f"SELECT {', '.join(RELATIONS[relation])} FROM {relation}".encode())


def test_functions(database: str) -> None:
    """Every promised call works, and `enqueue` returns the id it was given."""
    with psycopg.connect(database) as connection:
        for call in CALLS:
            connection.execute(f"SELECT {call}".encode())
        row = connection.execute("SELECT outbox.enqueue('a', task_id => 'mine')").fetchone()

    assert row == ("mine",)


def test_roles(database: str) -> None:
    """By these names logins are granted their rights."""
    roles = grant(database)

    assert {"outbox_producer", "outbox_relay", "outbox_inspector"} <= {*roles}


def test_commands() -> None:
    """Of the relay."""
    promised = "run status pending dead sent scheduled show retry discard replay purge doctor bench"
    promised += " expired pause resume rate routes"

    assert {*promised.split()} <= {command.name for command in COMMANDS}


def test_settings() -> None:
    """Of the relay; each is a flag as well, and secrets may be files."""
    promised = "SCHEMA DECLARE BATCH_SIZE WINDOW MAX_ATTEMPTS RETENTION HTTP_ADDRESS LOG_FORMAT"
    secrets = "DATABASE_URL DATABASE_URL_FILE BROKER_URL BROKER_URL_FILE LOG_LEVEL"

    assert {f"OUTBOX_{name}" for name in f"{promised} {secrets}".split()} <= {
        name for setting in TABLE for name in setting.variables
    }


def test_python() -> None:
    """What `from celery_outbox import` and `from celery_inbox import` are given."""
    assert {"OutboxCelery", "NoTransaction", "install"} <= {*celery_outbox.__all__}
    assert {"announce", "idempotent", "purge", "reliable"} <= {*celery_inbox.__all__}
    for name in ("using", "transaction", "publish", "cancel", "send_many"):
        assert callable(getattr(celery_outbox.Outbox, name))
