"""Statements sent ahead of their replies, through libpq: what the relay's speed hangs on.

Statements asked together are one transaction and one round trip, and the caller works while the
server does. psycopg's own pipeline mode reads every reply before it goes on.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import generators
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import RowMaker
from psycopg.types.string import ByteaBinaryLoader

from outbox_relay.postgres.database import BoundedConnection
from outbox_relay.postgres.statement import Statement

PARAMETER: Final = re.compile(r"%\((\w+)\)s")
BINARY: Final = 1
SUCCESS: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.PIPELINE_SYNC)


@dataclass(frozen=True, slots=True)
class Query:
    """A prepared statement to run, and what to make of each of its rows."""

    statement: Statement
    parameters: Mapping[str, object]
    make: RowMaker[Any] = tuple


class Pipeline:
    """Asks prepared statements on a connection. JSON is returned as its text in bytes.

    Between `ask` and `replies` the connection can do nothing else; after an error, nothing at all.
    """

    def __init__(self, connection: BoundedConnection) -> None:
        connection.adapters.register_loader("json", ByteaBinaryLoader)
        self._connection = connection
        self._rows = Transformer(connection)
        self._parameters: dict[str, list[str]] = {}
        self._asked: tuple[Query, ...] = ()

    def begin(
        self, asked: Sequence[Statement], prepared: Sequence[Statement]
    ) -> Iterator[list[Any]]:
        """Ask some statements, without parameters, and give others to the server: one round trip.

        Yields the rows of each that is asked, as they come. Go on until nothing more does.
        """
        pgconn = self._connection.pgconn
        pgconn.enter_pipeline_mode()
        for statement in asked:
            pgconn.send_query_params(statement.text.encode(), None, result_format=BINARY)
        for statement in prepared:
            names, text = _numbered(statement)
            pgconn.send_prepare(statement.name.encode(), text.encode())
            self._parameters[statement.name] = names
        pgconn.pipeline_sync()
        self._connection.wait(generators.send(pgconn))
        for _ in asked:
            yield self._made(self._reply(), tuple)
        for _ in (*prepared, "the end of the transaction"):
            self._reply()
        pgconn.exit_pipeline_mode()

    def prepare(self, statement: Statement) -> None:
        """Give one to the server; where that fails, the session goes on."""
        names, text = _numbered(statement)
        self._connection.pgconn.send_prepare(statement.name.encode(), text.encode())
        _check(self._connection.wait(generators.execute(self._connection.pgconn)))
        self._parameters[statement.name] = names

    def run(self, query: Query) -> list[Any]:
        """Run one statement and wait for its rows: the shortest way there and back."""
        self._send(query)
        execution = generators.execute(self._connection.pgconn)
        return self._made(_check(self._connection.wait(execution)), query.make)

    def ask(self, *queries: Query) -> None:
        """Send the statements, to be run one after another in one transaction."""
        pgconn = self._connection.pgconn
        pgconn.enter_pipeline_mode()
        for query in queries:
            self._send(query)
        pgconn.pipeline_sync()
        self._asked = queries
        self._connection.wait(generators.send(pgconn))

    def replies(self) -> list[list[Any]]:
        """Wait for the rows of each statement asked; by then they are committed."""
        asked, self._asked = self._asked, ()
        replies = [self._made(self._reply(), query.make) for query in asked]
        self._reply()  # the end of the transaction
        self._connection.pgconn.exit_pipeline_mode()
        return replies

    def _send(self, query: Query) -> None:
        name = query.statement.name
        values = [str(query.parameters[each]).encode() for each in self._parameters[name]]
        self._connection.pgconn.send_query_prepared(name.encode(), values, result_format=BINARY)

    def _reply(self) -> PGresult:
        return _check(self._connection.wait(generators.fetch_many(self._connection.pgconn)))

    def _made(self, result: PGresult, make: RowMaker[Any]) -> list[Any]:
        self._rows.set_pgresult(result)
        return self._rows.load_rows(0, result.ntuples, make)


def _numbered(statement: Statement) -> tuple[list[str], str]:
    """The names of its parameters, and the text with a number in the place of each."""
    names = list(dict.fromkeys(PARAMETER.findall(statement.text)))
    numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
    return names, PARAMETER.sub(lambda found: numbers[found[1]], statement.text)


def _check(results: list[PGresult]) -> PGresult:
    """The only result of a statement; raises the server's error."""
    (result,) = results
    if result.status not in SUCCESS:
        raise psycopg.errors.error_from_result(result)
    return result
