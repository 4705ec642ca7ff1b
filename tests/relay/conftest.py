"""The command line in this process, on a real database with messages in every state."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import structlog

from outbox_relay.cli.main import main
from tests.fixtures.broker import Broker

Cli = Callable[..., "Answer"]
Doctor = Callable[..., "Answer"]
#: Nothing listens there: what only the management API tells is not checked.
NO_MANAGEMENT = "http://127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What was printed for programs."""
        return json.loads(self.out)


@pytest.fixture
def own_logging() -> Iterator[None]:
    """What a command logs to, and at which level, ends with this test."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_logging: None
) -> Callable[..., Answer]:
    """Run the command line with these arguments and environment variables."""

    def run(*arguments: str, **environment: str) -> Answer:
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            try:
                code = main(arguments)
            except SystemExit as ended:  # argparse's way out
                code = int(ended.code or 0)
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return run


@pytest.fixture
def cli(command: Cli, database: str) -> Cli:
    """The same, on the fresh database."""

    def run(*arguments: str, **environment: str) -> Answer:
        return command(*arguments, **{"OUTBOX_DATABASE_URL": database, **environment})

    return run


@pytest.fixture
def doctor(cli: Cli, broker: Broker) -> Doctor:
    """Run `doctor` on the fresh database and the fresh virtual host."""

    def run(*arguments: str, **environment: str) -> Answer:
        usual = {"OUTBOX_BROKER_URL": broker.url, "OUTBOX_MANAGEMENT_URL": NO_MANAGEMENT}
        return cli("doctor", *arguments, **{**usual, **environment})

    return run


def finding(answer: Answer, level: str, name: str) -> str:
    """The text of the first finding of that level and name, with its remedy."""
    lines = answer.out.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"{level:<9}{name}: "):
            remedy = lines[number + 1] if lines[number + 1 :] else ""
            return line + (remedy if remedy.startswith(" ") else "")
    raise AssertionError(f"no {level} {name!r} in:\n{answer.out}{answer.err}")


@dataclass(frozen=True, slots=True)
class Outbox:
    """Puts messages into every state, as producers and relays leave them."""

    connection: psycopg.Connection[Any]

    def add(
        self,
        task: str = "shop.bill",
        queue: str = "celery",
        exchange: str = "",
        declare: str = "[]",
        eta: str | None = None,
        ordering_key: str | None = None,
        headers: str = '{"argsrepr": "(42,)", "kwargsrepr": "{}"}',
    ) -> str:
        """Insert a message, scheduled with an eta such as '1 hour'; returns its message id."""
        message_id = str(uuid4())
        self.connection.execute(
            """
            INSERT INTO outbox.message (message_id, task, exchange, routing_key, headers, body,
                content_type, content_encoding, declare, available_at, ordering_key)
            VALUES (%s, %s, %s, %s, %s,
                '[[42], {}, {}]', 'application/json', 'utf-8', %s, now() + %s::interval, %s)
            """,
            (message_id, task, exchange, queue, headers, declare, eta, ordering_key),
        )
        return message_id

    def add_dead(self, task: str = "shop.bill", error: str = "no route", **where: str) -> str:
        """Insert a message that was refused for good."""
        return self._park(self.add(task, **where), "dead", error)

    def add_refused(self, task: str = "shop.bill", error: str = "nacked", **where: str) -> str:
        """Insert a message that was refused and waits for another attempt."""
        return self._park(self.add(task, **where), "retry", error)

    def add_sent(self, task: str = "shop.bill", ago: str = "0 s", **where: str) -> str:
        """Insert a message that was confirmed so long ago."""
        message_id = self.add(task, **where)
        self.connection.execute(
            """
            WITH done AS (
                DELETE FROM outbox.ready r USING outbox.message m
                WHERE m.message_id = %s AND r.id = m.id RETURNING r.id, r.slot)
            INSERT INTO outbox.receipt (slot, sent_at, span, ids)
            SELECT slot, now() - %s::interval, int8range(id, id, '[]'), ARRAY[id] FROM done
            """,
            (message_id, ago),
        )
        return message_id

    def add_expired(self, task: str = "shop.bill", **where: str) -> str:
        """Insert a message that was over before a worker could have it."""
        message_id = self.add(task, **where)
        self.connection.execute(
            """
            WITH over AS (
                DELETE FROM outbox.ready r USING outbox.message m
                WHERE m.message_id = %s AND r.id = m.id RETURNING r.id, r.slot)
            INSERT INTO outbox.expiry (id, slot, last_error)
            SELECT id, slot, 'expired before it was published' FROM over
            """,
            (message_id,),
        )
        return message_id

    def lease(self, message_id: str) -> None:
        """Let a relay hold the message for a minute."""
        self.connection.execute(
            """
            UPDATE outbox.ready r SET claim_id = 1, lease_until = now() + interval '1 minute'
            FROM outbox.message m WHERE m.message_id = %s AND r.id = m.id
            """,
            (message_id,),
        )

    def row(self, message_id: str) -> int:
        """The number of the message's row."""
        found = self.connection.execute(
            "SELECT id FROM outbox.message WHERE message_id = %s", (message_id,)
        ).fetchone()
        assert found
        return int(found[0])

    def ids(self, view: str) -> set[str]:
        """The message ids in one of the views."""
        rows = self.connection.execute(f"SELECT message_id FROM outbox.{view}").fetchall()
        return {row[0] for row in rows}

    def _park(self, message_id: str, state: str, error: str) -> str:
        self.connection.execute(
            """
            WITH refused AS (
                DELETE FROM outbox.ready r USING outbox.message m
                WHERE m.message_id = %s AND r.id = m.id RETURNING r.id, r.slot)
            INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)
            SELECT id, slot, %s, now() + interval '1 hour', 3, %s FROM refused
            """,
            (message_id, state, error),
        )
        return message_id


@pytest.fixture
def outbox(database: str) -> Iterator[Outbox]:
    """The fresh database's outbox; what is put into it is committed at once."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield Outbox(connection)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the caller's settings reaches a test."""
    for name in list(os.environ):
        if name.startswith("OUTBOX_"):
            monkeypatch.delenv(name)
