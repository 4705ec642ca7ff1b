"""The tables refuse what no broker could take, keep the rest as it is, and explain themselves."""

import json
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.fixtures.rows import insert_rows

REFUSED: dict[str, dict[str, Any]] = {
    "no message id": {"message_ids": [None]},
    "empty message id": {"message_ids": [""]},
    "message id of 256 bytes": {"message_ids": ["é" * 128]},
    "no task": {"task": None},
    "empty task": {"task": ""},
    "task of 1001 bytes": {"task": "t" * 1001},
    "no exchange": {"exchange": None},
    "exchange of 256 bytes": {"exchange": "e" * 256},
    "routing key of 256 bytes": {"routing_key": "é" * 128},
    "no body": {"body": None},
    "content type empty": {"content_type": ""},
    "content type of 256 bytes": {"content_type": "t" * 256},
    "no content encoding": {"content_encoding": None},
    "headers null": {"headers": None},
    "headers JSON null": {"headers": "null"},
    "headers a list": {"headers": "[]"},
    "headers a number": {"headers": "1"},
    "headers with NaN": {"headers": '{"x": NaN}'},
    "headers not JSON": {"headers": "{'x': 1}"},
    "headers beyond a frame": {"headers": json.dumps({"x": "y" * 131_072})},
    "properties a text": {"properties": '"x"'},
    "properties JSON null": {"properties": "null"},
    "declare an object": {"declare": "{}"},
    "declare null": {"declare": None},
    "mandatory unknown": {"mandatory": None},
}


@pytest.mark.parametrize("columns", REFUSED.values(), ids=REFUSED)
def test_nonsense_is_refused_at_the_door(emptied_database: str, columns: dict[str, Any]) -> None:
    """The producer who writes it gets the error, and its transaction with it."""
    with (
        psycopg.connect(emptied_database) as connection,
        pytest.raises((errors.IntegrityError, errors.DataError)),
    ):
        insert_rows(connection, **columns)


def test_a_nul_character_is_refused(emptied_database: str) -> None:
    """Postgres has no such text, and the driver says so."""
    with psycopg.connect(emptied_database) as connection, pytest.raises(psycopg.DataError):
        insert_rows(connection, routing_key="a\0b")


def test_a_body_beyond_every_broker_is_refused(emptied_database: str) -> None:
    """More than 128 MiB would close the channel; made by the server to spare the network."""
    with (
        psycopg.connect(emptied_database) as connection,
        pytest.raises(errors.CheckViolation, match="body_fits_a_broker"),
    ):
        connection.execute(
            "INSERT INTO outbox.message (message_id, task, body, content_type, content_encoding)"
            " VALUES ('m', 't', convert_to(repeat('x', 134217729), 'UTF8'), 'c', 'e')"
        )


@pytest.mark.parametrize(
    ("column", "check"),
    [("properties", "properties_fit_a_frame"), ("declare", "declare_is_short")],
)
def test_what_a_relay_would_choke_on_is_refused(
    emptied_database: str, column: str, check: str
) -> None:
    """It holds a batch in memory: 128 KiB of each are plenty, and one byte more is too many."""
    empty = {"properties": '{"x": ""}', "declare": '[""]'}[column]
    most: dict[str, Any] = {column: empty.replace('""', f'"{"x" * (131_072 - len(empty))}"')}
    more = {column: most[column].replace('"x', '"xx')}
    with psycopg.connect(emptied_database) as connection:
        insert_rows(connection, **most)
        with pytest.raises(errors.CheckViolation, match=check):
            insert_rows(connection, **more)


def test_the_longest_names_there_are_fit(emptied_database: str) -> None:
    """255 bytes is what AMQP allows, so it is what the table allows."""
    longest = "é" * 127 + "e"
    with psycopg.connect(emptied_database) as connection:
        insert_rows(
            connection,
            message_ids=[longest],
            exchange=longest,
            routing_key=longest,
            content_type=longest,
            content_encoding=longest,
        )
        shown = connection.execute("SELECT message_id, exchange FROM outbox.pending").fetchone()
    assert shown == (longest, longest)


def test_the_id_is_the_databases_own(emptied_database: str) -> None:
    """Nobody can write one that collides with the next."""
    with psycopg.connect(emptied_database) as connection, pytest.raises(errors.GeneratedAlways):
        connection.execute(
            "INSERT INTO outbox.message (id, message_id, task, body, content_type,"
            " content_encoding) VALUES (1, 'm', 't', '', 'c', 'e')"
        )


def test_work_follows_the_transaction(emptied_database: str) -> None:
    """A rolled back savepoint takes its work along, what surrounds it stays."""
    with psycopg.connect(emptied_database) as connection:
        insert_rows(connection)
        with connection.transaction(force_rollback=True):
            insert_rows(connection, 5)
        insert_rows(connection, available_in=60)
    with psycopg.connect(emptied_database) as connection:
        work = connection.execute(
            "SELECT (SELECT count(*) FROM outbox.ready), (SELECT count(*) FROM outbox.parked)"
        )
        assert work.fetchone() == (1, 1)


def test_copy_makes_work_too(emptied_database: str) -> None:
    """Whatever way rows come in."""
    with psycopg.connect(emptied_database) as connection:
        with (
            connection.cursor() as cursor,
            cursor.copy(
                "COPY outbox.message (message_id, task, body, content_type, content_encoding)"
                " FROM STDIN"
            ) as copy,
        ):
            for number in range(10):
                copy.write_row((f"m{number}", "t", b"{}", "application/json", "utf-8"))
        assert connection.execute("SELECT count(*) FROM outbox.pending").fetchone() == (10,)


UNEXPLAINED = """
SELECT c.relname || coalesce('.' || a.attname, '')
FROM pg_class c
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace IN ('outbox'::regnamespace, 'inbox'::regnamespace)
  AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition AND c.relname <> 'schema_version'
  AND (obj_description(c.oid) IS NULL
       OR a.attnum IS NOT NULL AND col_description(c.oid, a.attnum) IS NULL)
UNION ALL
SELECT p.proname FROM pg_proc p
WHERE p.pronamespace = 'outbox'::regnamespace
  AND obj_description(p.oid) IS NULL
UNION ALL
SELECT nspname FROM pg_namespace
WHERE nspname IN ('outbox', 'inbox') AND obj_description(oid) IS NULL
"""


def test_everything_explains_itself(emptied_database: str) -> None:
    r"""Whoever meets the schema with \d+ and \df+ reads what each thing is for."""
    with psycopg.connect(emptied_database) as connection:
        assert connection.execute(UNEXPLAINED).fetchall() == []


def test_both_schemas_tell_their_version(emptied_database: str) -> None:
    """What the relay and the workers ask before they begin."""
    with psycopg.connect(emptied_database) as connection:
        versions = connection.execute("SELECT outbox.version(), inbox.version()").fetchone()
    assert versions == (1, 1)
