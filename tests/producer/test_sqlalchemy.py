"""A SQLAlchemy Session or Connection takes tasks as exactly as a psycopg connection does."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Delete, Engine, Update, column, create_engine, event, table, text, update
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from celery_outbox import OutboxNotReady, RowRefused, UnusableTarget
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.producer.conftest import Shop, Stored

COUNT = text("SELECT count(*) FROM outbox.message")
READ_ONLY = "-c default_transaction_read_only=on"
KINDS: dict[str, Callable[[Engine], Any]] = {
    "Session": Session,
    "scoped_session": lambda engine: scoped_session(sessionmaker(engine)),
    "Connection": lambda engine: engine.connect(),
}


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, database: str) -> Iterator[Engine]:
    """An engine on the test's database, with either driver."""
    engine = create_engine(database.replace("postgresql", f"postgresql+{request.param}", 1))
    yield engine
    engine.dispose()


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Any]:
    """A session or connection that has done nothing yet."""
    target = KINDS[request.param](engine)
    yield target
    target.close()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A Session that has done nothing yet."""
    with Session(engine) as session:
        yield session


def test_commits_with_the_data(shop: Shop, target: Any, stored: Stored) -> None:
    """The row appears at the commit, under the id of the AsyncResult."""
    with shop.app.outbox.using(target) as joined:
        result = shop.add.delay(1, 0)
        assert joined is target
    assert stored.rows() == []
    target.commit()

    assert [row.message_id for row in stored.rows()] == [result.id]


def test_commit_and_rollback_inside(shop: Shop, target: Any, stored: Stored) -> None:
    """A commit inside the block ends one transaction; what follows belongs to the next."""
    with shop.app.outbox.using(target):
        shop.add.delay(1, 0)
        target.commit()
        assert stored.args() == [1]
        shop.add.delay(2, 0)
        target.rollback()
        shop.add.delay(3, 0)
        target.execute(text("SELECT 1"))
        shop.add.delay(4, 0)
        target.rollback()
        shop.add.delay(5, 0)
        target.commit()

    assert stored.args() == [1, 5]


@pytest.mark.parametrize("busy", [False, True], ids=["no SQL between", "SQL between"])
def test_savepoints(shop: Shop, target: Any, stored: Stored, busy: bool) -> None:
    """A savepoint that rolls back takes its own rows with it, and only those."""

    def work() -> None:
        if busy:
            target.execute(text("SELECT 1"))

    with shop.app.outbox.using(target):
        shop.add.delay(1, 0)
        with target.begin_nested():
            work()
            shop.add.delay(2, 0)
            with suppress(KeyError), target.begin_nested():
                shop.add.delay(3, 0)
                work()
                shop.add.delay(4, 0)
                with target.begin_nested():
                    shop.add.delay(5, 0)
                raise KeyError
            shop.add.delay(6, 0)
        work()
        savepoint = target.begin_nested()
        shop.add.delay(7, 0)
        savepoint.rollback()
        shop.add.delay(8, 0)
        target.commit()

    assert stored.args() == [1, 2, 6, 8]


def test_a_savepoint_that_never_came_about(shop: Shop, target: Any, stored: Stored) -> None:
    """Of a savepoint SQLAlchemy had not sent yet when it was rolled back, no row is left."""
    with shop.app.outbox.using(target), suppress(KeyError), target.begin_nested():
        shop.add.delay(1, 0)
        raise KeyError
    target.commit()

    assert stored.rows() == []


def test_many_in_one_statement(shop: Shop, target: Any, stored: Stored) -> None:
    """Hundreds of sends in a row make one INSERT, in the order of sending."""
    query = text("SELECT count(DISTINCT xmin::text || cmin::text) FROM outbox.message")
    with shop.app.outbox.using(target):
        for number in range(300):
            shop.add.delay(number, 0)
        assert target.execute(query).scalar() == 1
        target.commit()

    assert stored.args() == list(range(300))


def test_every_column(shop: Shop, target: Any, stored: Stored) -> None:
    """One row or many, each column holds what it holds with psycopg."""
    with shop.app.outbox.using(target):
        for _ in range(3):
            shop.add.apply_async(
                ("\N{SNOWMAN} 100%s", 0), countdown=60, expires=90, priority=3, headers={"a": "%b"}
            )
            target.execute(COUNT)
        for _ in range(2):
            shop.add.apply_async(("\N{SNOWMAN} 100%s", 0), headers={"a": "%b"})
        target.commit()

    rows = stored.rows()
    assert stored.args() == ["\N{SNOWMAN} 100%s"] * 5
    assert all(row.headers["a"] == "%b" for row in rows)
    assert [row.available_at is None for row in rows] == [False] * 3 + [True] * 2
    assert {row.properties.get("priority") for row in rows} == {3, 0}


def test_per_call(shop: Shop, target: Any, stored: Stored) -> None:
    """`outbox=` joins a transaction where no block is open; so does an event."""
    shop.add.apply_async((1, 0), outbox=target)
    assert target.execute(COUNT).scalar() == 1
    shop.app.outbox.publish(target, [], exchange="events", routing_key="order.paid")
    target.commit()

    assert [row.task for row in stored.rows()] == ["shop.add", "order.paid"]


def test_transaction(shop: Shop, target: Any, stored: Stored) -> None:
    """`transaction` commits, rolls back, and is a savepoint when nested."""
    outbox = shop.app.outbox
    with outbox.transaction(target):
        shop.add.delay(1, 0)
        with suppress(KeyError), outbox.transaction(target):
            shop.add.delay(2, 0)
            raise KeyError
        with outbox.transaction(target):
            shop.add.delay(3, 0)
        assert stored.rows() == []
    assert stored.args() == [1, 3]
    with suppress(KeyError), outbox.transaction(target):
        shop.add.delay(4, 0)
        raise KeyError

    assert stored.args() == [1, 3]


def test_server_side_cursors(shop: Shop, target: Any, stored: Stored) -> None:
    """What is sent while a result is streamed is stored beside it."""
    numbers = text("SELECT generate_series(1, 3)").execution_options(stream_results=True)
    with shop.app.outbox.using(target):
        for number in target.execute(numbers).scalars():
            shop.add.delay(number, 0)
            target.execute(text("SELECT 1"))
        target.commit()

    assert stored.args() == [1, 2, 3]


def test_in_the_middle_of_a_transaction(shop: Shop, target: Any, stored: Stored) -> None:
    """A block may begin after savepoints did, and end before them."""
    target.execute(text("SELECT 1"))
    with target.begin_nested():
        with suppress(KeyError), target.begin_nested():
            with shop.app.outbox.using(target):
                shop.add.delay(1, 0)
            raise KeyError
        with shop.app.outbox.using(target):
            shop.add.delay(2, 0)
    target.commit()

    assert stored.args() == [2]


def test_closing_rolls_back(shop: Shop, target: Any, stored: Stored) -> None:
    """What was sent goes the way of everything else in the transaction."""
    with shop.app.outbox.using(target):
        shop.add.delay(1, 0)
        target.close()

    assert stored.rows() == []


def test_refuses_a_closed_connection(shop: Shop, engine: Engine) -> None:
    """There is nothing to join."""
    connection = engine.connect()
    connection.close()
    with pytest.raises(UnusableTarget, match="closed"), shop.app.outbox.using(connection):
        pass


def test_refuses_autocommit(shop: Shop, engine: Engine) -> None:
    """A connection with no transaction to join is refused, and so is a session on one."""
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with (
        autocommit.connect() as connection,
        pytest.raises(UnusableTarget, match="autocommit"),
        shop.app.outbox.using(connection),
    ):
        pass
    with (
        Session(autocommit) as session,
        pytest.raises(UnusableTarget, match="autocommit"),
        shop.app.outbox.using(session),
    ):
        shop.add.delay(1, 0)


def test_refuses_a_failed_transaction(shop: Shop, target: Any) -> None:
    """Sending in a transaction that can only roll back raises at once."""
    with shop.app.outbox.using(target):
        with pytest.raises(DBAPIError):
            target.execute(text("SELECT 1/0"))
        with pytest.raises(UnusableTarget, match="rolled back"):
            shop.add.delay(1, 0)


@pytest.mark.parametrize("kind", ["using", "transaction"])
def test_the_driver_is_judged_when_something_is_sent(shop: Shop, kind: str) -> None:
    """On SQLite, as in many a test suite, a block is entered and left; a send names the driver."""
    with Session(create_engine("sqlite://")) as session:
        block = getattr(shop.app.outbox, kind)
        with block(session):
            session.execute(text("SELECT 1"))
        with suppress(KeyError), block(session):
            raise KeyError
        shop.app.conf.task_always_eager = True
        with block(session):
            assert shop.add.delay(1, 2).get() == 3
        shop.app.conf.task_always_eager = False
        with pytest.raises(UnusableTarget, match="sqlite"), block(session):
            shop.add.delay(1, 0)


def test_refuses_a_session_without_a_database(shop: Shop) -> None:
    """A session that knows only the databases of its mappers cannot tell where to."""
    with (
        Session() as session,
        shop.app.outbox.using(session),
        pytest.raises(UnusableTarget, match="bind_arguments"),
    ):
        shop.add.delay(1, 0)


def test_a_session_that_reads_elsewhere(shop: Shop, engine: Engine, stored: Stored) -> None:
    """What routes writes to a primary has its tasks there too, in the transaction of its data."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effect AS SELECT 0 AS n"))
    replica = create_engine(engine.url, connect_args={"options": READ_ONLY})

    class Routing(Session):
        def get_bind(self, *_: Any, clause: Any = None, **__: Any) -> Engine:
            writes = self._flushing or isinstance(clause, Update | Delete)
            return engine if writes else replica

    with Routing() as session, shop.app.outbox.using(session):
        assert session.execute(COUNT).scalar() == 0
        shop.add.delay(1, 0)
        session.execute(update(table("effect", column("n"))).values(n=1))
        shop.add.apply_async((2, 0), outbox=session)
        session.commit()
        shop.add.delay(3, 0)
        session.rollback()
    replica.dispose()

    assert stored.args() == [1, 2]
    versions = stored.fetch("SELECT xmin FROM outbox.message UNION SELECT xmin FROM effect")
    assert len(versions) == 1


@pytest.mark.parametrize("end", ["leave", "query", "commit", "savepoint"])
def test_says_why(shop: Shop, target: Any, stored: Stored, end: str) -> None:
    """Whatever comes next raises the error, without the payload, and nothing is committed."""
    target.execute(text("ALTER TABLE outbox.message ADD CONSTRAINT nothing CHECK (task = 'x')"))
    target.commit()
    do: dict[str, Callable[[], object]] = {
        "leave": lambda: None,
        "query": lambda: target.execute(COUNT),
        "commit": target.commit,
        "savepoint": target.begin_nested,
    }

    def send() -> None:
        with shop.app.outbox.using(target):
            target.execute(text("CREATE TABLE effect ()"))
            shop.add.delay("the payload", 0)
            do[end]()

    with pytest.raises(RowRefused, match="nothing"):
        send()
    with suppress(PendingRollbackError):
        target.commit()
    target.rollback()
    assert target.execute(text("SELECT to_regclass('effect')")).scalar() is None


def test_no_schema(shop: Shop, target: Any) -> None:
    """A missing table is reported with the command that creates it."""
    target.execute(text("DROP SCHEMA outbox CASCADE"))
    target.commit()
    with pytest.raises(OutboxNotReady, match="outbox-migrate up"), shop.app.outbox.using(target):
        shop.add.delay(1, 0)


def test_a_failure_on_this_side_cannot_commit(
    shop: Shop, target: Any, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server never learns of the failure the connection is given up."""

    def broken(*_: Any) -> Any:
        raise UnicodeEncodeError("latin-1", "", 0, 1, "no such letter")

    monkeypatch.setattr("celery_outbox.statements.commands.insert", broken)
    target.execute(text("CREATE TABLE effect ()"))
    with pytest.raises(UnicodeEncodeError), shop.app.outbox.using(target):
        shop.add.delay(1, 0)
    with suppress(PendingRollbackError):
        target.commit()
    target.rollback()
    assert target.execute(text("SELECT to_regclass('effect')")).scalar() is None


def test_an_error_is_not_hidden(shop: Shop, target: Any) -> None:
    """Where the block already failed, that error is the one that is raised."""
    target.execute(text("DROP SCHEMA outbox CASCADE"))
    target.commit()

    def fail() -> None:
        with shop.app.outbox.using(target):
            shop.add.delay(1, 0)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()


def test_a_session_within_a_transaction_of_a_test(
    shop: Shop, engine: Engine, stored: Stored
) -> None:
    """With the recipe for test suites, a session in an outer transaction, rows stay inside it."""
    for mode in ("conditional_savepoint", "create_savepoint"):
        with engine.connect() as connection:
            outer = connection.begin()
            with (
                Session(connection, join_transaction_mode=mode) as session,
                shop.app.outbox.using(session),
            ):
                shop.add.delay(1, 0)
                session.commit()
                shop.add.delay(2, 0)
                session.commit()
            assert connection.execute(COUNT).scalar() == 2
            outer.rollback()

    assert stored.rows() == []


def test_two_phase_commit(shop: Shop, own_postgres: OwnPostgres) -> None:
    """A transaction that is prepared takes its rows along."""
    url = migrated_database(own_postgres({"max_prepared_transactions": "5"}))
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    with Session(engine, twophase=True) as session, shop.app.outbox.using(session):
        shop.add.delay(1, 0)
        session.prepare()
        assert Stored(url).rows() == []
        session.commit()
        shop.add.delay(2, 0)
        session.rollback()

    assert Stored(url).args() == [1]


def test_two_phases_without_the_first(shop: Shop, engine: Engine, stored: Stored) -> None:
    """A two-phase transaction may also commit at once; one that rolls back leaves no message."""
    with engine.connect() as connection, shop.app.outbox.using(connection):
        with connection.begin_twophase():
            shop.add.delay(1, 0)
        undecided = connection.begin_twophase()
        shop.add.delay(2, 0)
        undecided.rollback()
        with connection.begin():
            shop.add.delay(3, 0)

    assert stored.args() == [1, 3]


def test_sent_by_listeners_while_committing(shop: Shop, session: Session, stored: Stored) -> None:
    """What a listener sends as the session commits is stored, or refused: never lost in silence."""
    using = shop.app.outbox.using(session)
    with using:
        event.listen(session, "before_commit", lambda _: shop.add.delay(1, 0), once=True)
        session.execute(text("SELECT 1"))
        session.commit()
        assert stored.args() == [1]
        event.listen(session, "before_commit", lambda _: shop.add.delay(2, 0), once=True)
        with pytest.raises(UnusableTarget, match="over"):
            session.commit()

    assert stored.args() == [1]


def test_sent_after_the_commit(shop: Shop, session: Session) -> None:
    """A hook that comes too late is told so: no transaction of its has failed."""
    with shop.app.outbox.using(session):
        event.listen(session, "after_commit", lambda _: shop.add.delay(1, 0), once=True)
        session.execute(text("SELECT 1"))
        with pytest.raises(UnusableTarget, match="after_commit hook"):
            session.commit()
