"""Roles that can do their job and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier

from outbox_migrations import MigrationError, grant, upgrade
from outbox_relay.configuration import from_environment
from outbox_relay.core.claim import Claim, Turn
from outbox_relay.core.dead_letter import DeadLetter
from outbox_relay.core.message import Parking
from outbox_relay.postgres.counting import Counter
from outbox_relay.postgres.home import Home
from outbox_relay.postgres.store import Store
from outbox_relay.postgres.workers import Workers
from servers import Postgres
from tests.fixtures.rows import commit_rows, insert_rows, states

LoginAs = Callable[[str], str]


@pytest.fixture
def login_as(postgres: Postgres, database: str) -> Iterator[LoginAs]:
    """Grant the roles, and give the URL of a login that is a member of one of them."""
    grant(database)
    logins: list[str] = []

    def login(role: str) -> str:
        name = f"login_{role}"
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'p'").format(Identifier(name)))
            admin.execute(SQL("GRANT {} TO {}").format(Identifier(role), Identifier(name)))
        logins.append(name)
        parts = urlsplit(database)
        return urlunsplit(parts._replace(netloc=f"{name}:p@{parts.hostname}:{parts.port}"))

    yield login
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        for name in logins:
            admin.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def denied(url: str, statements: list[str]) -> list[str]:
    """Those of the statements that the login may run after all: none, one hopes."""
    allowed = []
    for statement in statements:
        with psycopg.connect(url) as connection:
            try:
                connection.execute(statement.encode())
            except errors.InsufficientPrivilege:
                continue
            allowed.append(statement)
    return allowed


def test_granting_twice_is_granting_once(database: str) -> None:
    """A deployment may run it every time."""
    grant(database)
    grant(database)


def test_a_producer_inserts(login_as: LoginAs, database: str) -> None:
    """Plain rows, scheduled ones, and by the function: all without any right beyond INSERT."""
    producer = login_as("outbox_producer")

    with psycopg.connect(producer) as connection:
        insert_rows(connection, 2)
        insert_rows(connection, available_in=3600)
        connection.execute("SELECT outbox.enqueue('shop.bill', '[1]', eta => now() + '1 hour')")
        connection.execute("SELECT outbox.version()")
        connection.execute("SELECT outbox.default_queue()")

    assert states(database) == {"pending": 2, "scheduled": 2, "sent": 0, "dead": 0}


def test_a_producer_takes_back_its_own_message(login_as: LoginAs, database: str) -> None:
    """The one thing besides inserting."""
    producer = login_as("outbox_producer")
    (message_id,) = commit_rows(database)

    with psycopg.connect(producer) as connection:
        answer = connection.execute("SELECT outbox.cancel(%s)", [message_id]).fetchone()

    assert answer == (True,)
    assert states(database)["pending"] == 0


TABLES = ("message", "ready", "parked", "receipt", "message_0", "schema_version")
VIEWS = ("pending", "scheduled", "sent", "dead", "stats")
FUNCTIONS = (
    "retry('m')",
    "discard('m')",
    "replay(now())",
    "replay_message('m')",
    "send_again('{}', '{}')",
    "purge('1 day')",
    "empty_slot(1::smallint)",
    "forget('{}', '{}')",
    "bring_home('{}', '{}', '{}')",
    "set_default_queue('mine')",
    "rough_count('outbox.ready', 'true')",
)


def test_a_producer_does_nothing_else(login_as: LoginAs, database: str) -> None:
    """Every other verb on every object is refused, RETURNING and ON CONFLICT included."""
    commit_rows(database)
    producer = login_as("outbox_producer")
    row = "(message_id, task, body, content_type, content_encoding) VALUES ('m', 't', '', 'c', 'e')"
    statements = [
        *(f"SELECT * FROM outbox.{name}" for name in TABLES + VIEWS),
        *(f"DELETE FROM outbox.{name}" for name in TABLES),
        *(f"TRUNCATE outbox.{name}" for name in TABLES),
        *(f"SELECT outbox.{call}" for call in FUNCTIONS),
        *(f"UPDATE outbox.{name} SET slot = 1" for name in ("message", "ready", "parked")),
        "UPDATE outbox.message SET body = ''",
        f"INSERT INTO outbox.message {row} RETURNING id",
        f"INSERT INTO outbox.message {row} ON CONFLICT (id, slot) DO NOTHING",
        f"INSERT INTO outbox.message_0 {row}",
        "INSERT INTO outbox.message (slot, message_id, task, body, content_type, content_encoding)"
        " VALUES (0, 'm', 't', '', 'c', 'e')",
        "INSERT INTO outbox.message (created_at, message_id, task, body, content_type,"
        " content_encoding) VALUES ('epoch', 'm', 't', '', 'c', 'e')",
        "INSERT INTO outbox.ready (id, slot) VALUES (1, 1)",
        "INSERT INTO outbox.parked (id, slot, state, available_at) VALUES (1, 1, 'dead', now())",
        "INSERT INTO outbox.receipt (slot, span, ids) VALUES (1, '[1,2)', '{1}')",
        "COPY outbox.message TO STDOUT",
        "SELECT nextval(pg_get_serial_sequence('outbox.message', 'id'))",
        "CREATE TABLE outbox.mine ()",
        "LOCK TABLE outbox.message IN ACCESS EXCLUSIVE MODE",
        "ALTER TABLE outbox.message DISABLE TRIGGER ALL",
    ]

    assert denied(producer, statements) == []


def test_a_relay_does_all_its_work(login_as: LoginAs, database: str) -> None:
    """Every call of the store, and every function that acts on messages, as that role."""
    commit_rows(database, 7)
    commit_rows(database, available_in=0.001)
    url = login_as("outbox_relay")
    store = Store.connect(url, "outbox", statement_timeout=5)
    rows = store.round_trip(None, Turn([], 0, 100, 1, 60)).rows
    claim = store.round_trip(Claim(rows, 1, 0.0), None).fetched
    assert claim is not None
    messages = claim.messages
    store.renew([m.held for m in messages], 60)
    store.park(
        [
            Parking(messages[0], "dead", 1, 0, 0.0, "why"),
            Parking(messages[1], "retry", 1, 0, 0.0, ""),
        ]
    )
    store.promote(1000)
    store.release([messages[2].held])
    store.park_detached([messages[2].held], 60)
    store.drop_orphans([messages[2].held])
    store.round_trip(None, Turn(messages[3:], 0, 0, 2, 60))
    store.forget(messages[3:4])
    store.settle_late(messages[3:4])
    store.set_apart("why")
    store.read_history()

    assert store.anything_left()
    store.close()
    counter = Counter.connect(url, "outbox", statement_timeout=5)
    counts = counter.counts()
    counter.close()
    assert counts.stats is not None
    assert (counts.stats.dead, counts.failures) == (1, ())


def test_a_relay_brings_dead_letters_home(login_as: LoginAs, database: str) -> None:
    """It finds their queues, has them dead, sees which workers are alive and wakes what waits."""
    url = login_as("outbox_relay")
    urls = {"OUTBOX_DATABASE_URL": url, "OUTBOX_BROKER_URL": "amqp://x"}
    settings = from_environment(urls)
    with psycopg.connect(database) as connection:
        [message_id] = insert_rows(connection)
        connection.execute("DELETE FROM outbox.ready")
        connection.execute('SELECT inbox.announce(\'w\', \'{"queues": ["q"], "tasks": []}\', 9)')

    with Home.open(settings) as home:
        assert home.is_mine()
        assert home.queues() == ["celery.dead", "q.dead"]
        letter = DeadLetter("celery.dead", message_id, "rejected", "why", None)
        assert home.bring([letter]) == {message_id: "home"}
    with closing(Workers.open(settings)) as workers:
        assert workers.known() == {}
        assert workers.fingerprint()
        assert workers.wake() == 0


def test_a_relays_person_acts_on_messages(login_as: LoginAs, database: str) -> None:
    """What the command line does with that role: look, retry, discard, replay."""
    commit_rows(database, 2)
    with psycopg.connect(database) as admin:
        admin.execute("DELETE FROM outbox.ready")
        admin.execute(
            "INSERT INTO outbox.parked (id, slot, state, available_at)"
            " SELECT id, slot, 'dead', now() FROM outbox.message"
        )
    with psycopg.connect(login_as("outbox_relay")) as connection:
        first, second = [
            message_id for (message_id,) in connection.execute("SELECT message_id FROM outbox.dead")
        ]
        assert connection.execute("SELECT outbox.retry(%s)", [first]).fetchone() == (1,)
        assert connection.execute("SELECT outbox.discard(%s)", [second]).fetchone() == (1,)
        assert connection.execute("SELECT outbox.replay('-infinity')").fetchone() == (0,)
        assert connection.execute("SELECT outbox.replay_message('m')").fetchone() == (0,)
        for view in VIEWS:
            connection.execute(SQL("SELECT * FROM outbox.{}").format(Identifier(view)))


def test_a_relay_cannot_change_or_forge_a_message(login_as: LoginAs, database: str) -> None:
    """It works off what producers wrote: no other body, no row of its own, no deletion."""
    commit_rows(database)
    relay = login_as("outbox_relay")
    statements = [
        *(
            f"UPDATE outbox.message SET {column} = {column}"
            for column in ("body", "headers", "routing_key", "slot", "available_at")
        ),
        "INSERT INTO outbox.message (message_id, task, body, content_type, content_encoding)"
        " VALUES ('m', 't', '', 'c', 'e')",
        "DELETE FROM outbox.message",
        "TRUNCATE outbox.message",
        "UPDATE outbox.receipt SET sent_at = now()",
        "DELETE FROM outbox.receipt",
        "SELECT outbox.enqueue('t')",
        "SELECT outbox.set_default_queue('mine')",
        "SELECT outbox.send_again('{1}', '{1}')",
        "SELECT outbox.empty_slot(1::smallint)",
        "CREATE TABLE outbox.mine ()",
        "DROP TABLE outbox.message",
    ]

    assert denied(relay, statements) == []


def test_an_inspector_sees_no_payload(login_as: LoginAs, database: str) -> None:
    """Counts, ids, tasks, routes and times; no body, header, argument or raw error."""
    commit_rows(database, 3)
    inspector = login_as("outbox_inspector")
    with psycopg.connect(inspector) as connection:
        connection.execute("SELECT * FROM outbox.stats")
        seen = connection.execute(
            "SELECT id, message_id, task, exchange, routing_key, created_at, available_at, attempts"
            " FROM outbox.pending"
        ).fetchall()
        connection.execute("SELECT id, message_id, task, sent_at FROM outbox.sent")
        connection.execute("SELECT count(*) FROM outbox.dead")
    assert len(seen) == 3

    hidden = [
        *(f"SELECT {column} FROM outbox.pending" for column in ("args", "kwargs", "last_error")),
        *(f"SELECT {column} FROM outbox.dead" for column in ("args", "kwargs", "last_error")),
        *(f"SELECT {column} FROM outbox.sent" for column in ("args", "kwargs")),
        *(f"SELECT * FROM outbox.{name}" for name in TABLES),
        *(f"DELETE FROM outbox.{name}" for name in TABLES),
        *(f"SELECT body FROM outbox.{name}" for name in ("message", "message_0")),
        "SELECT headers FROM outbox.message",
        "SELECT last_error FROM outbox.parked",
        "INSERT INTO outbox.message (message_id, task, body, content_type, content_encoding)"
        " VALUES ('m', 't', '', 'c', 'e')",
        "UPDATE outbox.ready SET attempts = 0",
        *(f"SELECT outbox.{call}" for call in FUNCTIONS[:-1]),
        "SELECT outbox.enqueue('t')",
        "SELECT outbox.cancel('m')",
        "SELECT outbox.rough_count('outbox.message', 'true')",
    ]
    assert denied(inspector, hidden) == []


def test_a_worker_keeps_the_inbox(login_as: LoginAs) -> None:
    """It remembers, looks up, answers, and forgets what is old; the outbox is closed to it."""
    worker = login_as("inbox_worker")
    with psycopg.connect(worker) as connection:
        connection.execute(
            "INSERT INTO inbox.processed (message_id, task) VALUES ('m', 't')"
            " ON CONFLICT DO NOTHING"
        )
        connection.execute("UPDATE inbox.processed SET result = '1' WHERE message_id = 'm'")
        connection.execute("SELECT task, result FROM inbox.processed WHERE message_id = 'm'")
        connection.execute("SELECT inbox.purge(), inbox.version()")
        connection.execute("SELECT inbox.announce('w', '{\"queues\": [], \"tasks\": []}', 10)")
        connection.execute("SELECT inbox.beat('w', 10), inbox.leave('w')")

    statements = [
        "SELECT * FROM inbox.worker",
        "DELETE FROM inbox.worker",
        "DELETE FROM inbox.processed",
        "TRUNCATE inbox.processed",
        "UPDATE inbox.processed SET message_id = 'n'",
        "CREATE TABLE inbox.mine ()",
        "SELECT * FROM inbox.schema_version",
        *(f"SELECT * FROM outbox.{name}" for name in TABLES + VIEWS),
    ]
    assert denied(worker, statements) == []


@pytest.mark.parametrize("role", ["outbox_relay", "outbox_inspector"])
def test_who_looks_at_the_outbox_sees_which_workers_are_alive(login_as: LoginAs, role: str) -> None:
    """And neither says so for a worker, nor sees what has run."""
    reader = login_as(role)
    with psycopg.connect(reader) as connection:
        connection.execute("SELECT node, queues, tasks, alive_until FROM inbox.worker")

    statements = [
        "SELECT inbox.announce('w', '{}', 10)",
        "SELECT inbox.leave('w')",
        "DELETE FROM inbox.worker",
        "SELECT * FROM inbox.processed",
    ]
    assert denied(reader, statements) == []


def test_a_database_with_an_inbox_alone(postgres: Postgres, empty_database: str) -> None:
    """Roles are granted for what is there."""
    upgrade(empty_database, component="inbox")

    assert grant(empty_database) == ("inbox_worker",)
    assert grant(empty_database, component="inbox") == ("inbox_worker",)
    with pytest.raises(MigrationError, match="no schema outbox"):
        grant(empty_database, component="outbox")


def test_strangers_see_nothing(database: str, login_as: LoginAs) -> None:
    """A login without any of the roles."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS outbox_stranger")
        admin.execute("CREATE ROLE outbox_stranger")
    stranger = login_as("outbox_stranger")
    statements = [f"SELECT * FROM outbox.{name}" for name in TABLES + VIEWS]

    statements += ["SELECT outbox.version()", "SELECT * FROM inbox.processed"]
    statements += ["SELECT inbox.purge()", "SELECT inbox.version()"]
    assert denied(stranger, statements) == []


def test_a_hostile_search_path_changes_nothing(login_as: LoginAs, database: str) -> None:
    """Functions that run with the owner's rights look up no name a caller could plant."""
    producer = login_as("outbox_producer")
    with psycopg.connect(producer) as connection:
        connection.execute("CREATE TEMP TABLE ready (id bigint, slot smallint)")
        connection.execute("CREATE TEMP TABLE parked (LIKE ready)")
        connection.execute("CREATE TEMP TABLE message (LIKE ready)")
        connection.execute("SET search_path = pg_temp, public")
        (message_id,) = insert_rows(connection)
        connection.execute("SELECT outbox.enqueue('shop.bill')")
        cancelled = connection.execute("SELECT outbox.cancel(%s)", [message_id]).fetchone()

    assert cancelled == (True,)
    assert states(database)["pending"] == 1
