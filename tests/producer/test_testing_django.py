"""What Django's own test classes see of an outbox: how many queries, and what stays behind."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
from celery import chain, chord, group
from django.db import connections, transaction  # type: ignore[import-untyped]  # ships no types
from django.test import (  # type: ignore[import-untyped]  # the same
    TestCase,
    TransactionTestCase,
    override_settings,
)

from celery_outbox.testing import OutboxTestMixin
from tests.producer.conftest import Shop, Stored, make_shop
from tests.producer.test_testing_claims import succeeds

PAGE: Final = (Path(__file__).parents[2] / "docs" / "how-to" / "testing.md").read_text()

#: What is sent within `atomic` -> the queries that assertNumQueries counts for it.
QUERIES: dict[str, tuple[Any, int]] = {
    "delay": (lambda s: s.add.delay(1, 2), 1),
    "later": (lambda s: s.add.apply_async((1, 2), countdown=60), 1),
    "event": (lambda s: s.app.outbox.publish(None, {}, exchange="e"), 1),
    "ordering_key": (lambda s: s.add.apply_async((1, 2), ordering_key="k"), 1),
    "dedup_key": (lambda s: s.add.apply_async((1, 2), dedup_key="k"), 2),
    "chain": (lambda s: chain(s.add.s(1, 2), s.add.s(3)).delay(), 1),
    "group of 3": (lambda s: group(s.add.s(n, 2) for n in range(3)).delay(), 3),
    "chord of 3": (lambda s: chord([s.add.s(n, 2) for n in range(3)], s.total.s()).delay(), 3),
}


@pytest.mark.parametrize("what", QUERIES)
def test_queries_of_a_send(django_database: str, trap: str, what: str) -> None:
    """`assertNumQueries` counts one for each message, and one more for its `dedup_key`."""
    shop = make_shop(trap, result_backend="cache+memory://")
    send, queries = QUERIES[what]

    class CountingTest(TestCase):  # type: ignore[misc]  # Django ships no types
        def test_alone(self) -> None:
            with self.assertNumQueries(queries):
                send(shop)

        def test_in_atomic(self) -> None:
            with transaction.atomic(), self.assertNumQueries(queries):
                send(shop)

        def test_with_data(self) -> None:
            """The two queries of the savepoint and the one of the data are Django's."""
            with self.assertNumQueries(3 + queries), transaction.atomic():
                with connections["default"].cursor() as cursor:
                    cursor.execute("SELECT 1")
                send(shop)

    succeeds(CountingTest)


def test_the_page_says_how_many() -> None:
    """One for each message, two with a `dedup_key`."""
    (said,) = re.findall(r"`assertNumQueries` counts ([^.]*)\.", PAGE)
    assert " ".join(said.split()) == (
        "one query for each message that is sent, its `INSERT`, and one more for its `dedup_key`"
    )


@pytest.fixture
def shop(trap: str) -> Shop:
    """An app whose tasks add, and can be run."""
    return make_shop(trap)


def test_what_one_test_commits_the_next_one_sees(
    django_database: str, shop: Shop, stored: Stored
) -> None:
    """A TransactionTestCase empties Django's tables, not the outbox's: until it is run."""
    seen: list[list[int]] = []

    class CommittingTest(OutboxTestMixin, TransactionTestCase):  # type: ignore[misc]  # the same
        outbox_app = shop.app

        def test_1(self) -> None:
            shop.add.delay(1, 0)
            seen.append([message.args[0] for message in self.outbox.sent()])

        def test_2(self) -> None:
            shop.add.delay(2, 0)
            seen.append([message.args[0] for message in self.outbox.sent()])
            assert [run.result for run in self.outbox.run()] == [1, 2]

        def test_3(self) -> None:
            seen.append([message.args[0] for message in self.outbox.sent()])

    with override_settings(INSTALLED_APPS=["outbox_migrations.django", "celery_outbox.django"]):
        succeeds(CommittingTest)

    assert seen == [[1], [1, 2], []]


def test_the_page_says_how_to_discard_it(django_database: str, shop: Shop, stored: Stored) -> None:
    """Its statements, as they stand there, leave nothing for the next test."""
    (statements,) = re.findall(r"```sql\n(SELECT outbox\.discard.*?)```", PAGE, re.DOTALL)
    seen: list[int] = []

    class CommittingTest(OutboxTestMixin, TransactionTestCase):  # type: ignore[misc]  # the same
        outbox_app = shop.app

        def setUp(self) -> None:
            super().setUp()
            with connections["default"].cursor() as cursor:
                cursor.execute(statements)

        def test_1(self) -> None:
            shop.add.delay(1, 0)
            shop.add.apply_async((1, 0), countdown=3600)
            seen.append(len(stored.rows()))

        def test_2(self) -> None:
            self.outbox.assert_nothing_sent()
            shop.add.delay(2, 0)
            seen.append(len(stored.rows()))

    succeeds(CommittingTest)

    assert seen == [2, 1]
