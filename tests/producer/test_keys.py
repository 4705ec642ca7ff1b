"""`ordering_key` and `dedup_key` reach the outbox from every kind of transaction, and mean it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, LiteralString

import psycopg
import psycopg2
import pytest
from celery import chain, chord, group
from django.db import transaction  # type: ignore[import-untyped]  # Django ships no types
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from celery_outbox import UnpublishableMessage, UnsupportedOption, UnusableTarget
from outbox_relay.core.claim import LaneClaim, Turn
from outbox_relay.postgres.store import Store
from tests.fixtures.waiting import wait_until
from tests.producer.conftest import Connection, Shop, Stored, make_shop
from tests.producer.test_worker import deliver

Open = Callable[[], AbstractContextManager[None]]
TURN = Turn([], 0, 100, 1, 60.0, LaneClaim(0, 100))


@pytest.fixture(params=["psycopg", "psycopg2", "sqlalchemy", "django", "own"])
def in_transaction(request: pytest.FixtureRequest, shop: Shop, database: str) -> Open:
    """Open a block whose tasks are committed at its end, or rolled back by an error."""
    kind = request.param
    if kind == "django":
        request.getfixturevalue("django_database")
    if kind == "own":
        shop.app.conf.outbox_database_url = database

    @contextmanager
    def block() -> Iterator[None]:
        with ExitStack() as stack:
            if kind == "psycopg":
                connection = stack.enter_context(psycopg.connect(database))
                stack.enter_context(shop.app.outbox.transaction(connection))
            elif kind == "psycopg2":
                other = psycopg2.connect(database)
                stack.callback(other.close)
                stack.enter_context(shop.app.outbox.transaction(other))
            elif kind == "sqlalchemy":
                engine = create_engine(database.replace("postgresql", "postgresql+psycopg", 1))
                stack.callback(engine.dispose)
                session = stack.enter_context(Session(engine))
                stack.enter_context(shop.app.outbox.transaction(session))
            elif kind == "django":
                stack.enter_context(transaction.atomic())
            yield

    return block


def claim(database: str) -> list[int]:
    """Claim whatever a relay could, as one; the rows' ids."""
    store = Store.connect(database, "outbox", statement_timeout=5)
    try:
        answer = store.round_trip(None, TURN)
        return sorted(row.id for row in answer.heads + answer.rows)
    finally:
        store.close()


class TestOrdering:
    """Messages with an ordering key wait for one another."""

    def test_every_way_of_sending_takes_one(
        self, shop: Shop, in_transaction: Open, stored: Stored, database: str
    ) -> None:
        """Tasks, events and plain sends in one transaction; only the first with a key may go."""
        with in_transaction():
            shop.add.delay(0, 0)
            shop.add.apply_async((1, 0), ordering_key="order-1")
            shop.app.send_task("shop.add", (2, 0), ordering_key="order-1")
            shop.add.s(3, 0).set(ordering_key="order-2").delay()
            shop.app.outbox.publish(None, [4], exchange="events", ordering_key="order-1")

        keys = [row.ordering_key for row in stored.rows()]
        assert keys == [None, "order-1", "order-1", "order-2", "order-1"]
        assert claim(database) == [stored.rows()[number].id for number in (0, 1, 3)]

    def test_a_group_is_published_in_its_order(
        self, shop: Shop, connection: Connection, stored: Stored
    ) -> None:
        """An option of the group is one of each of its tasks, as any option in Celery."""
        with shop.app.outbox.transaction(connection):
            group(shop.add.s(n, 0) for n in range(3)).apply_async(ordering_key="a")

        assert [row.ordering_key for row in stored.rows()] == ["a", "a", "a"]

    def test_eager_tasks_need_no_order(self, dead_url: str) -> None:
        """They run at once, and leave no row."""
        shop = make_shop(dead_url, task_always_eager=True)

        result = shop.add.apply_async((1, 2), ordering_key="a", dedup_key="b")

        assert result.get() == 3


class TestDeduplication:
    """While a message is pending, a second one with its key is not stored."""

    def test_the_second_result_is_the_first_ones(
        self, shop: Shop, in_transaction: Open, stored: Stored
    ) -> None:
        """In the same transaction and in a later one; other keys, and none, are no concern."""
        with in_transaction():
            shop.add.delay(0, 0)
            first = shop.add.apply_async((1, 0), dedup_key="a")
            again = shop.add.apply_async((2, 0), dedup_key="a")
            other = shop.add.apply_async((3, 0), dedup_key="b")
        with in_transaction():
            later = shop.add.apply_async((4, 0), dedup_key="a")
            event = shop.app.outbox.publish(None, [5], exchange="events", dedup_key="b")

        assert stored.args() == [0, 1, 3]
        assert first.id == again.id == later.id == stored.rows()[1].message_id
        assert other.id == event == stored.rows()[2].message_id

    def test_what_is_rolled_back_was_never_pending(
        self, shop: Shop, in_transaction: Open, stored: Stored
    ) -> None:
        """The key is free again, of a savepoint as well."""
        with suppress(KeyError), in_transaction():
            shop.add.apply_async((1, 0), dedup_key="a")
            raise KeyError
        with in_transaction():
            result = shop.add.apply_async((2, 0), dedup_key="a")

        if stored.args() != [1]:  # in a transaction of its own there is nothing to roll back
            assert stored.args() == [2]
            assert stored.rows()[0].message_id == result.id

    def test_what_a_relay_has_claimed_is_not_pending(
        self, shop: Shop, in_transaction: Open, stored: Stored, database: str
    ) -> None:
        """It may be on the wire, without what the second one was sent for: both are stored."""
        with in_transaction():
            shop.add.apply_async((1, 0), dedup_key="a")
        assert len(claim(database)) == 1
        with in_transaction():
            second = shop.add.apply_async((2, 0), dedup_key="a")
        with in_transaction():
            third = shop.add.apply_async((3, 0), dedup_key="a")

        assert stored.args() == [1, 2]
        assert second.id == third.id == stored.rows()[1].message_id

    @pytest.mark.parametrize("options", [{"countdown": 3600}, {"ordering_key": "o"}])
    def test_scheduled_and_ordered_ones_are_pending_too(
        self, shop: Shop, in_transaction: Open, stored: Stored, options: dict[str, Any]
    ) -> None:
        """A burst of wishes for later becomes one task."""
        results = []
        for number in range(3):
            with in_transaction():
                results.append(shop.add.apply_async((number, 0), dedup_key="a", **options))

        assert stored.args() == [0]
        assert {result.id for result in results} == {stored.rows()[0].message_id}

    def test_a_cancelled_one_is_not(
        self, shop: Shop, connection: Connection, stored: Stored
    ) -> None:
        """The next one is stored."""
        with shop.app.outbox.transaction(connection):
            first = shop.add.apply_async((1, 0), dedup_key="a")
            assert shop.app.outbox.cancel(connection, first.id)
            shop.add.apply_async((2, 0), dedup_key="a")

        assert stored.args() == [2]

    def test_the_first_waits_for_the_seconds_transaction(
        self, shop: Shop, connection: Connection, database: str
    ) -> None:
        """So that the task sees what the second was sent for; others do not wait."""
        with psycopg.connect(database) as another, shop.app.outbox.transaction(another):
            shop.add.apply_async((1, 0), dedup_key="a")
            shop.add.apply_async((1, 0), dedup_key="b", ordering_key="b")
            shop.add.apply_async((1, 0), dedup_key="c", countdown=0.01)
            shop.add.delay(2, 0)
        with shop.app.outbox.transaction(connection):
            for key in "abc":
                shop.add.apply_async((1, 0), dedup_key=key)
            store = Store.connect(database, "outbox", statement_timeout=5)
            wait_until(lambda: store.promote(1000) == 0, 10, "nothing more is due")
            store.close()
            assert len(claim(database)) == 1

        store = Store.connect(database, "outbox", statement_timeout=5)
        store.promote(1000)
        store.close()
        assert len(claim(database)) == 3

    def test_producers_at_the_same_time_store_one(
        self, shop: Shop, in_transaction: Open, stored: Stored
    ) -> None:
        """The second waits for the first to commit; nobody fails."""
        ids: list[str] = []
        begin = threading.Barrier(4)

        def produce(number: int) -> None:
            begin.wait(10)
            with in_transaction():
                ids.append(shop.add.apply_async((number, 0), dedup_key="a").id)

        threads = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

        assert len(ids) == 4
        assert set(ids) == {row.message_id for row in stored.rows()}
        assert len(stored.rows()) == 1

    def test_the_order_of_rows_is_that_of_sending(
        self, shop: Shop, connection: Connection, stored: Stored
    ) -> None:
        """Also of those without a key around them, savepoints included."""
        with shop.app.outbox.transaction(connection):
            shop.add.delay(1, 0)
            shop.add.apply_async((2, 0), dedup_key="a")
            with suppress(KeyError), shop.app.outbox.transaction(connection):
                shop.add.apply_async((3, 0), dedup_key="b")
                raise KeyError
            shop.add.delay(4, 0)
            shop.add.apply_async((5, 0), dedup_key="b")

        assert stored.args() == [1, 2, 4, 5]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "plain psycopg"])
def test_on_asyncio_the_result_follows(
    shop: Shop, stored: Stored, database: str, driver: str
) -> None:
    """Sending awaits nothing: the id is the first one's once the block has ended."""

    async def body(target: Any) -> None:
        results = []
        for _ in range(2):
            async with shop.app.outbox.transaction(target):
                shop.add.delay(0, 0)
                results += [shop.add.apply_async((1, 0), dedup_key="a") for _ in range(2)]
                results.append(shop.add.apply_async((2, 0), dedup_key="b"))
        first, again, other, later, last, another = (result.id for result in results)
        assert first == again == later == last == stored.rows()[1].message_id
        assert other == another == stored.rows()[2].message_id

    async def main() -> None:
        if driver == "plain psycopg":
            async with await psycopg.AsyncConnection.connect(database) as connection:
                await body(connection)
            return
        engine = create_async_engine(database.replace("postgresql", f"postgresql+{driver}", 1))
        async with AsyncSession(engine) as session:
            await body(session)
        await engine.dispose()

    asyncio.run(main())
    assert stored.args() == [0, 1, 2, 0]


def test_many_keys_at_a_time_take_turns(shop: Shop, stored: Stored, database: str) -> None:
    """On asyncio a block claims all its keys at once: two that share them do not deadlock."""
    waiting: LiteralString = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def wait_for(number: int) -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            wait_until(
                lambda: connection.execute(waiting).fetchone() == (number,), 10, f"{number} waiting"
            )

    async def send(keys: str) -> None:
        async with (
            await psycopg.AsyncConnection.connect(database) as connection,
            shop.app.outbox.transaction(connection),
        ):
            for key in keys:
                shop.add.apply_async((key, 0), dedup_key=key)

    async def main() -> None:
        async with (
            asyncio.TaskGroup() as senders,
            await psycopg.AsyncConnection.connect(database) as connection,
            shop.app.outbox.transaction(connection),
        ):
            shop.add.apply_async(("a", 0), dedup_key="a")
            await connection.execute("SELECT 1")
            for number, keys in enumerate(("ab", "ba"), 1):
                senders.create_task(send(keys))
                await asyncio.to_thread(wait_for, number)

    asyncio.run(main())
    assert stored.args() == ["a", "b"]


#: Ways for a task to be followed by another.
FOLLOWERS: dict[str, Callable[[Shop, Any], Any]] = {
    "link": lambda s, keyed: s.add.apply_async((1, 2), link=keyed),
    "errback": lambda s, keyed: s.add.apply_async((1, 2), link_error=keyed),
    "step": lambda s, keyed: chain(s.add.s(1, 2), s.add.s(3), keyed).delay(),
    "body": lambda s, keyed: chord([s.add.s(1, 1), s.add.s(2, 2)], keyed).delay(),
    "link of a link": lambda s, keyed: s.add.apply_async((1, 2), link=s.add.s(1).on_error(keyed)),
    "group": lambda s, keyed: chain(s.add.s(1, 2), group(s.add.s(3), keyed)).delay(),
    "step of a link": lambda s, keyed: s.add.apply_async((1, 2), link=s.add.s(1) | keyed),
}


class TestRefusals:
    """What could not be kept is not promised."""

    @pytest.mark.parametrize("option", ["ordering_key", "dedup_key"])
    @pytest.mark.parametrize("key", ["", 5, "é" * 101, "a\0b", b"bytes"])
    def test_odd_keys(self, shop: Shop, connection: Connection, option: str, key: object) -> None:
        """Refused where they are sent, by name."""
        with (
            shop.app.outbox.using(connection),
            pytest.raises(UnpublishableMessage, match=option),
        ):
            shop.add.apply_async((1, 0), **{option: key})

    def test_parts_of_a_whole_are_not_deduplicated(
        self, shop: Shop, connection: Connection, stored: Stored
    ) -> None:
        """What waits for them would wait for ever."""
        with shop.app.outbox.transaction(connection):
            for whole in (
                chain(shop.add.s(1, 0), shop.add.s(2)),
                group(shop.add.s(1, 0), shop.add.s(2, 0)),
            ):
                with pytest.raises(UnsupportedOption, match="chain, group or chord"):
                    whole.apply_async(dedup_key="a")
        assert stored.rows() == []

    @pytest.mark.parametrize("option", [{"dedup_key": "a"}, {"outbox": "default"}], ids=str)
    @pytest.mark.parametrize("kind", FOLLOWERS)
    def test_what_follows_has_none(
        self,
        trap: str,
        connection: Connection,
        stored: Stored,
        kind: str,
        option: dict[str, str],
    ) -> None:
        """Refused where it is sent: the worker could only let the task before it fail."""
        shop = make_shop(trap, result_backend="cache+memory://")
        (name,) = option
        with (
            shop.app.outbox.transaction(connection),
            pytest.raises(UnsupportedOption, match=f"the {name}=? of a link"),
        ):
            FOLLOWERS[kind](shop, shop.add.si(1, 1).set(**option))

        assert stored.rows() == []

    def test_what_follows_although_it_has_a_key(self, trap: str, database: str) -> None:
        """A link of a sender that knows no better is sent: the task before it has succeeded."""
        shop = make_shop(trap, outbox_database_url=database)
        link = shop.add.si(1, 1).set(dedup_key="a")

        assert deliver(shop.app, "shop.add", 1, 1, callbacks=[dict(link)])[0] == "SUCCESS"
        (row,) = Stored(database).rows()
        assert row.dedup_key is None

    def test_a_retry_is_sent_whatever_its_key(self, database: str, trap: str) -> None:
        """Keys are not inherited, and one given to retry() cannot make it disappear."""
        shop = make_shop(trap, outbox_database_url=database)

        @shop.app.task(bind=True, name="shop.again", shared=False)
        def again(self: Any, key: str | None, /) -> None:
            raise self.retry(countdown=0, dedup_key=key)

        for key in (None, "a", "a"):
            assert deliver(shop.app, "shop.again", key)[0] == "RETRY"
        keys = [(row.ordering_key, row.dedup_key) for row in Stored(database).rows()]
        assert keys == [(None, None)] * 3

    def test_pipeline_mode_gives_no_answers(self, shop: Shop, connection: Connection) -> None:
        """Whether a key is pending must be known."""
        with shop.app.outbox.transaction(connection), connection.pipeline():
            with pytest.raises(UnusableTarget, match="pipeline"):
                shop.add.apply_async((1, 0), dedup_key="a")
            shop.add.apply_async((1, 0), ordering_key="a")

    def test_a_routes_key_is_refused(self, connection: Connection, trap: str) -> None:
        """There, nobody could be told the other one's id."""
        shop = make_shop(trap, task_routes={"shop.add": {"dedup_key": "a"}})
        with shop.app.outbox.using(connection), pytest.raises(UnsupportedOption, match="route"):
            shop.add.delay(1, 0)
