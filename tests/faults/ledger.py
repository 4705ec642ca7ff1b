"""What a producer knows of its own commits, kept apart from the database that a test torments.

An id is unknown from the moment its COMMIT is sent until the reply is there; one whose reply never
came stays unknown, and shares the fate of the data beside it.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import psycopg

#: Each message names itself at the start of its body, whatever its length.
_INSERT = """
INSERT INTO outbox.message (message_id, task, exchange, routing_key, headers, properties, body,
    content_type, content_encoding, mandatory, declare, available_at, expires_at)
SELECT id, 'shop.bill', %(exchange)s, %(routing_key)s, %(headers)s::json, %(properties)s::json,
    convert_to(id || repeat('x', %(padding)s), 'UTF8'), 'application/json', 'utf-8', %(mandatory)s,
    %(declare)s::json, %(available_at)s, NULL
FROM unnest(%(ids)s::text[]) AS id
"""
_ORDINARY: dict[str, Any] = {
    "exchange": "",
    "routing_key": "celery",
    "headers": '{"task": "shop.bill"}',
    "properties": '{"delivery_mode": 2}',
    "padding": 0,
    "mandatory": True,
    "declare": '[{"kind": "queue", "name": "celery", "routing_key": "celery"}]',
    "available_at": None,
}
_ROLLED_BACK = 0.1
_MOST_ROWS = 20


@dataclass(slots=True)
class Ledger:
    """The ids of everything that was ever inserted, by what became of its transaction."""

    chance: random.Random = field(default_factory=lambda: random.Random(1))
    committed: set[str] = field(default_factory=set)
    rolled_back: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    #: Committed, and to be found dead instead of in the queue.
    doomed: set[str] = field(default_factory=set)
    #: Committed, and gone with the state of the database that they were in.
    forgotten: set[str] = field(default_factory=set)
    #: In what way all of them are out of the ordinary.
    columns: dict[str, Any] = field(default_factory=dict)

    def commit(
        self, database: str, count: int, *, doomed: bool = False, **columns: Any
    ) -> set[str]:
        """Insert rows in a transaction of their own and commit them."""
        with psycopg.connect(database) as connection:
            return self.write(connection, count, doomed=doomed, **columns)

    def roll_back(self, database: str, count: int) -> None:
        """Insert rows, and change our mind."""
        with psycopg.connect(database) as connection:
            self.write(connection, count, keep=False)

    def write(
        self,
        connection: psycopg.Connection[Any],
        count: int,
        *,
        keep: bool = True,
        doomed: bool = False,
        **columns: Any,
    ) -> set[str]:
        """Insert rows, end the transaction, and note how."""
        ids = self.new_ids(count)
        with self.noting(ids):
            insert(connection, ids, **{**self.columns, **columns})
            if not keep:
                connection.rollback()
                return set()
            self.unknown |= ids  # from here on a failure leaves us ignorant
            connection.commit()
            (self.doomed if doomed else self.committed).update(ids)
        return ids

    @contextmanager
    def noting(self, ids: set[str]) -> Iterator[None]:
        """Note ids as rolled back, unless the block puts them elsewhere."""
        try:
            yield
        except psycopg.Error as error:
            if error.sqlstate is not None and not isinstance(error, psycopg.OperationalError):
                self.unknown -= ids  # the server itself says that it did not commit
            raise
        else:
            self.unknown -= ids
        finally:
            self.rolled_back |= ids - self.unknown - self.committed - self.doomed

    def known(self) -> set[str]:
        """What may be in the database by now."""
        return self.committed | self.doomed | self.unknown

    def forget(self, ids: set[str]) -> None:
        """The database was set back to a state without these; what arrived of them arrived."""
        for kept in (self.committed, self.doomed, self.unknown):
            kept -= ids
        self.forgotten |= ids

    def new_ids(self, count: int) -> set[str]:
        """Ids that no database gave us: the same seed, the same ids."""
        return {str(UUID(int=self.chance.getrandbits(128), version=4)) for _ in range(count)}


def insert(connection: psycopg.Connection[Any], ids: Iterable[str], **columns: Any) -> None:
    """Insert a message for each id in the connection's transaction."""
    connection.execute(_INSERT, {**_ORDINARY, **columns, "ids": list(ids)})


class Producer:
    """A thread that commits, and sometimes rolls back, small transactions through any outage."""

    def __init__(self, ledger: Ledger, database: str, pause: float = 0.005) -> None:
        self._ledger, self._database, self._pause = ledger, database, pause
        self._leaving = Event()
        self._error: Exception | None = None
        self._thread = Thread(target=self._work, name="producer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leaving.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _work(self) -> None:
        try:
            while not self._leaving.is_set():
                try:
                    with psycopg.connect(self._database, connect_timeout=2) as connection:
                        self._write(connection)
                except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
                    self._leaving.wait(0.1)
        except Exception as error:
            self._error = error

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        chance = self._ledger.chance
        while not self._leaving.wait(self._pause):
            keep = chance.random() > _ROLLED_BACK
            self._ledger.write(connection, chance.randint(1, _MOST_ROWS), keep=keep)
