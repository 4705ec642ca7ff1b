"""The database the tasks of a test write to, seen from outside their transactions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import IsolationLevel

#: Runs a task as a worker does for one message; returns its result or raises how it ended.
Deliver = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Ledger:
    """One table for what tasks do, and the inbox beside it."""

    dsn: str
    isolation: IsolationLevel | None = None

    def connect(self) -> psycopg.Connection[Any]:
        """What the tasks under test pass to @idempotent."""
        connection = psycopg.connect(self.dsn)
        connection.isolation_level = self.isolation
        return connection

    def run(self, statement: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own; its rows, if it returns any."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def effects(self) -> list[str]:
        """What the task bodies have committed, in order."""
        return [note for (note,) in self.run("SELECT note FROM effect ORDER BY id")]

    def inbox(self) -> list[tuple[Any, ...]]:
        """Every row of the inbox: id, task and result."""
        return self.run("SELECT message_id, task, result::text FROM inbox.processed ORDER BY 1")
