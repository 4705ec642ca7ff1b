"""A task sent inside `using` shares the fate of the statements around it, to the savepoint."""

import contextvars
import multiprocessing
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.errors import UniqueViolation
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from celery_outbox import NoTransaction, OutboxClosed, UnusableTarget
from celery_outbox.targets.psycopg_buffer import Buffer
from tests.producer.conftest import Connection, Shop, Stored, make_shop


def count(connection: Connection) -> int:
    """Return how many rows the transaction of `connection` sees."""
    row = connection.execute("SELECT count(*) FROM outbox.message").fetchone()
    return int(row[0]) if row else -1


def test_commits_with_the_data(shop: Shop, connection: Connection, stored: Stored) -> None:
    """The row appears at the commit, not before, under the id of the AsyncResult."""
    with connection, shop.app.outbox.using(connection) as joined:
        result = shop.add.delay(1, 2)

        assert joined is connection
        assert stored.rows() == []

    (row,) = stored.rows()
    assert row.message_id == result.id
    assert (row.task, row.exchange, row.routing_key) == ("shop.add", "", "celery")


def test_begins_the_transaction(shop: Shop, connection: Connection, stored: Stored) -> None:
    """A block without any other statement leaves a transaction to commit."""
    with shop.app.outbox.using(connection):
        shop.add.delay(1, 2)
    assert stored.rows() == []
    connection.commit()

    assert stored.args() == [1]


def test_rolls_back_with_the_data(shop: Shop, connection: Connection, stored: Stored) -> None:
    """After a rollback no row is left."""
    with suppress(KeyError), connection, shop.app.outbox.using(connection):
        shop.add.delay(1, 2)
        raise KeyError

    assert stored.rows() == []


def test_an_error_caught_outside_the_block_loses_nothing(
    shop: Shop, connection: Connection, stored: Stored
) -> None:
    """What was sent before an error is stored if the transaction commits all the same."""
    with suppress(KeyError), shop.app.outbox.using(connection):
        shop.add.delay(1, 2)
        raise KeyError
    connection.commit()

    assert stored.args() == [1]


def test_savepoints(shop: Shop, connection: Connection, stored: Stored) -> None:
    """A savepoint that rolls back takes its own rows with it, and only those."""
    with connection, shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        with connection.transaction():
            shop.add.delay(2, 0)
            with suppress(KeyError), connection.transaction():
                shop.add.delay(3, 0)
                raise KeyError
            shop.add.delay(4, 0)
        shop.add.delay(5, 0)

    assert stored.args() == [1, 2, 4, 5]


def test_savepoints_in_sql(shop: Shop, connection: Connection, stored: Stored) -> None:
    """Savepoints psycopg knows nothing of are as exact."""
    with connection, shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        connection.execute("SAVEPOINT a")
        shop.add.delay(2, 0)
        connection.execute("ROLLBACK TO a")
        shop.add.delay(3, 0)
        connection.execute("SAVEPOINT b")
        shop.add.delay(4, 0)
        connection.execute("RELEASE b")

    assert stored.args() == [1, 3, 4]


def test_commit_and_rollback_inside(shop: Shop, connection: Connection, stored: Stored) -> None:
    """A commit inside the block ends one transaction; what follows belongs to the next."""
    with shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        connection.commit()
        assert stored.args() == [1]
        shop.add.delay(2, 0)
        connection.rollback()
        shop.add.delay(3, 0)
        connection.commit()

    assert stored.args() == [1, 3]


def test_a_query_sees_the_rows(shop: Shop, connection: Connection) -> None:
    """Whatever reads the outbox in the transaction finds what was sent before it."""
    with shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        assert count(connection) == 1
        cursor = connection.cursor()
        shop.add.delay(2, 0)
        shop.add.delay(3, 0)
        cursor.execute("SELECT count(*) FROM outbox.message")
        assert cursor.fetchone() == (3,)


def test_many_in_one_statement(shop: Shop, connection: Connection, stored: Stored) -> None:
    """Hundreds of sends in a row make one INSERT, in the order of sending."""
    query = "SELECT count(DISTINCT xmin::text || cmin::text) FROM outbox.message"
    with connection, shop.app.outbox.using(connection):
        for number in range(300):
            shop.add.delay(number, 0)
        assert connection.execute(query).fetchone() == (1,)

    assert stored.args() == list(range(300))


def test_nested_on_one_connection(shop: Shop, connection: Connection, stored: Stored) -> None:
    """Blocks of one connection nest, and what a block sent is stored when it ends."""
    with connection, shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        with shop.app.outbox.using(connection):
            shop.add.delay(2, 0)
        assert not Buffer.of(connection).entries
        shop.add.delay(3, 0)

    assert stored.args() == [1, 2, 3]


def test_nested_on_two_connections(
    shop: Shop, database: str, connection: Connection, stored: Stored
) -> None:
    """The innermost block decides, and its end gives the outer one back."""
    with psycopg.connect(database) as other, shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        with shop.app.outbox.using(other):
            shop.add.delay(2, 0)
        shop.add.delay(3, 0)
        connection.rollback()

    assert stored.args() == [2]


def test_per_call(shop: Shop, connection: Connection, stored: Stored) -> None:
    """`outbox=` joins a transaction where no block is open, and one that is not the block's."""
    shop.add.apply_async((1, 0), outbox=connection)
    assert count(connection) == 1
    shop.app.send_task("elsewhere.task", (2,), outbox=connection)
    with shop.app.outbox.using(connection):
        shop.add.delay(3, 0)
        shop.add.apply_async((4, 0), outbox=connection)
    connection.commit()

    assert stored.args() == [1, 2, 3, 4]


def test_copy_and_stream(shop: Shop, connection: Connection, stored: Stored) -> None:
    """What is sent in the middle of a COPY or a stream is stored right after it."""
    with connection, shop.app.outbox.using(connection):
        connection.execute("CREATE TEMP TABLE numbers (n int)")
        with connection.cursor() as cursor:
            with cursor.copy("COPY numbers FROM STDIN") as copy:
                for number in (1, 2):
                    shop.add.delay(number, 0)
                    copy.write_row((number,))
            for (number,) in cursor.stream("SELECT n + 2 FROM numbers ORDER BY n"):
                shop.add.delay(number, 0)

    assert stored.args() == [1, 2, 3, 4]


def test_pipeline(shop: Shop, connection: Connection, stored: Stored) -> None:
    """In pipeline mode the rows are sent down the pipeline in their place."""
    with connection, shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        with connection.pipeline():
            shop.add.delay(2, 0)
            cursor = connection.execute("SELECT count(*) FROM outbox.message")
            shop.add.delay(3, 0)
            with suppress(KeyError), connection.transaction():
                shop.add.delay(4, 0)
                raise KeyError
            assert cursor.fetchone() == (2,)
        connection.cursor().executemany("SELECT %s", [(1,), (2,)])
        shop.add.delay(5, 0)
        connection.cursor().executemany("SELECT %s", [(1,), (2,)])

    assert stored.args() == [1, 2, 3, 5]


def test_refuses_autocommit(shop: Shop, database: str) -> None:
    """A connection with no transaction to join is refused, with the two ways out."""
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(UnusableTarget, match="transaction"), shop.app.outbox.using(connection):
            pass
        with connection.transaction(), shop.app.outbox.using(connection):
            shop.add.delay(1, 0)
            assert count(connection) == 1


def test_refuses_a_failed_transaction(shop: Shop, connection: Connection) -> None:
    """Sending in a transaction that can only roll back raises at once."""
    with connection, shop.app.outbox.using(connection):
        with pytest.raises(UniqueViolation):
            connection.execute(
                "CREATE TEMP TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1), (1)"
            )
        with pytest.raises(UnusableTarget, match="rolled back"):
            shop.add.delay(1, 0)


def test_refuses_a_closed_connection(shop: Shop, connection: Connection) -> None:
    """Messages on a connection closed inside the block are not lost in silence."""

    def close_too_early() -> None:
        with shop.app.outbox.using(connection):
            shop.add.delay(1, 0)
            connection.close()

    with pytest.raises(UnusableTarget, match="closed"):
        close_too_early()
    with pytest.raises(UnusableTarget, match="closed"), shop.app.outbox.using(connection):
        pass


@pytest.mark.parametrize("target", [object(), "postgresql://localhost/shop", None])
def test_refuses_what_is_no_connection(shop: Shop, target: Any) -> None:
    """Anything that is not a connection it knows is named in the error."""
    with pytest.raises(UnusableTarget, match="Connection"):
        shop.app.outbox.using(target)


def test_refuses_a_cursor(shop: Shop, connection: Connection) -> None:
    """A cursor is not taken for its connection."""
    with pytest.raises(UnusableTarget, match="connection itself"):
        shop.app.outbox.using(connection.cursor())


def test_refuses_after_the_end(shop: Shop, connection: Connection, stored: Stored) -> None:
    """A thread that outlives the block it inherited is told so; nothing is lost in silence."""
    with connection, shop.app.outbox.using(connection):
        inherited = contextvars.copy_context()
        inherited.run(shop.add.delay, 1, 0)
    with pytest.raises(OutboxClosed, match=r"shop\.add"):
        inherited.run(shop.add.delay, 2, 0)

    assert stored.args() == [1]


def send_in_child(shop: Shop, number: int, *, refused: bool) -> None:
    """What the forked child does."""
    if refused:
        with pytest.raises(NoTransaction):
            shop.add.delay(number, 0)
    else:
        shop.add.delay(number, 0)


@pytest.mark.parametrize("library", ["psycopg", "SQLAlchemy"])
@pytest.mark.parametrize("block", ["using", "transaction"])
def test_a_process_forked_inside_is_in_no_block(
    trap: str, shop: Shop, database: str, stored: Stored, library: str, block: str
) -> None:
    """It has no transaction to join: what it sends is refused, or durable at once, never lost."""
    apart = make_shop(trap, outbox_database_url=database)
    engine = create_engine(database.replace("postgresql", "postgresql+psycopg", 1))
    target: Any = psycopg.connect(database) if library == "psycopg" else Session(engine)
    fork = multiprocessing.get_context("fork")
    ours, theirs = getattr(shop.app.outbox, block), getattr(apart.app.outbox, block)
    with target, ours(target), theirs(target):
        children = [
            fork.Process(target=send_in_child, args=(shop, 2), kwargs={"refused": True}),
            fork.Process(target=send_in_child, args=(apart, 3), kwargs={"refused": False}),
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(30)
        assert [child.exitcode for child in children] == [0, 0]
        assert stored.args() == [3]
        shop.add.delay(1, 0)
        target.commit() if block == "using" else None

    assert stored.args() == [3, 1]
    engine.dispose()
