"""A session with the outbox: which version and which history it has, and statements run on it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from outbox_relay.core.backlog import History
from outbox_relay.errors import SchemaError, StoreLost
from outbox_relay.postgres.database import BoundedConnection, translated
from outbox_relay.postgres.literals import charset_of
from outbox_relay.postgres.pipeline import Pipeline
from outbox_relay.postgres.statement import Statement

#: The schema versions this relay can work with.
SCHEMA_VERSIONS: Final = (1,)

VERSION: Final = Statement("version", "SELECT {outbox}.version()")

#: Which history of its data the server lives in, which table, and how far it has come: a standby
#: that is promoted begins another history, a dump that is restored makes another table, a snapshot
#: that is put back has come less far. What is flushed survives a crash: that alone never goes back.
#: The history is NULL while the server still is a standby.
HISTORY: Final = Statement(
    "history",
    """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN
           left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/'
           || '{outbox}.message'::regclass::oid END,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() - '0/0' END::bigint
""",
)


class Session:
    """A connection, and the statements of a schema as it sends them."""

    history: History

    def __init__(self, connection: BoundedConnection, schema: str) -> None:
        self._connection = connection
        self._cursor = connection.cursor(binary=True)
        self._charset = charset_of(connection.info)
        self._schema = schema
        self._sql: dict[Statement, str] = {}

    def check_version(self) -> None:
        """Raise SchemaError where the schema is of a version this relay does not know."""
        self._judge_version(self._run(VERSION))

    def read_history(self) -> History:
        """How far the database has come. Raises StoreLost at a standby: nothing can be claimed."""
        return _history(self._run(HISTORY))

    def close(self) -> None:
        """Close the connection; what is claimed stays claimed until its lease ends."""
        self._connection.close()

    def _judge_version(self, rows: list[Any]) -> None:
        found = rows[0][0]
        if found not in SCHEMA_VERSIONS:
            raise SchemaError(
                f"schema {self._schema!r} has version {found}, this relay works with "
                f"{', '.join(map(str, SCHEMA_VERSIONS))}: upgrade "
                f"{'the relay' if found > max(SCHEMA_VERSIONS) else 'it with outbox-migrate up'}"
            )

    def _begin(self, pipeline: Pipeline, prepared: Sequence[Statement]) -> None:
        """Check the version, read the history, and have these prepared, in one round trip."""
        asked = [each.in_schema(self._schema) for each in (VERSION, HISTORY)]
        with translated():
            begun = pipeline.begin(asked, [each.in_schema(self._schema) for each in prepared])
            self._judge_version(next(begun))  # another version may lack what is prepared
            self.history = _history(next(begun))
            for _ in begun:
                pass

    def _run(self, statement: Statement, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        sql = self._sql.get(statement)
        if sql is None:
            sql = self._sql[statement] = statement.in_schema(self._schema).text
        with translated():
            self._cursor.execute(sql, parameters)
            result = self._cursor.pgresult
            return self._cursor.fetchall() if result and result.nfields else []


def _history(rows: list[Any]) -> History:
    timeline, position = rows[0]
    if timeline is None:
        raise StoreLost(
            "the database is a standby: name the primary, or all of them with "
            "target_session_attrs=read-write"
        )
    return History(timeline, position)
