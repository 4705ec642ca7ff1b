"""Many sends in Django: no transaction is named, and one can begin or end between two calls."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connections, transaction  # type: ignore[import-untyped]  # Django ships no types

from celery_outbox import RowRefused, UnusableTarget
from celery_outbox.targets.django import DjangoTarget
from tests.producer.conftest import Shop, Stored

pytestmark = pytest.mark.usefixtures("django_database")

Call = tuple[Any, ...]


def test_one_for_some(shop: Shop, stored: Stored) -> None:
    """Each `atomic` has what was yielded in it, as it ends."""

    def calls() -> Iterator[Call]:
        for chunk in range(0, 20, 5):
            with suppress(KeyError), transaction.atomic():
                yield from ((number, 0) for number in range(chunk, chunk + 5))
                if chunk == 10:
                    raise KeyError
            expected = [*range(10), *range(15, chunk + 5)] if chunk >= 10 else None
            assert stored.args() == (expected or [*range(chunk + 5)])

    shop.app.outbox.send_many(shop.add, calls())


def test_one_that_begins_late(shop: Shop, stored: Stored) -> None:
    """Takes nothing along that was yielded before it."""

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        with suppress(KeyError), transaction.atomic():
            yield from ((number, 0) for number in range(5, 10))
            raise KeyError
        yield from ((number, 0) for number in range(10, 15))

    shop.app.outbox.send_many(shop.add, calls())
    assert stored.args() == [*range(5), *range(10, 15)]


def test_none_begun(shop: Shop, stored: Stored, alike: list[int]) -> None:
    """A portion is stored at a time."""
    shop.app.outbox.send_many(shop.add, ((number, 0) for number in range(20)))
    assert (stored.args(), alike) == ([*range(20)], [18])


def test_in_atomic(shop: Shop, stored: Stored, alike: list[int]) -> None:
    """Messages wait for the next statement, and the savepoints of `atomic` are exact."""

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(20))
        with suppress(KeyError), transaction.atomic():
            yield from ((number, 0) for number in range(20, 30))
            raise KeyError
        yield from ((number, 0) for number in range(30, 50))

    with transaction.atomic():
        shop.app.outbox.send_many(shop.add, calls())
    assert (stored.args(), alike) == ([*range(20), *range(30, 50)], [18, 10, 20])


def test_an_atomic_that_must_roll_back(shop: Shop, stored: Stored) -> None:
    """Takes no more messages, although no statement told of it."""

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        with suppress(KeyError), transaction.atomic(savepoint=False):
            raise KeyError
        yield (5, 0)

    with pytest.raises(UnusableTarget, match="can only be rolled back"), transaction.atomic():
        shop.app.outbox.send_many(shop.add, calls())
    assert stored.rows() == []


def test_a_row_that_is_refused(shop: Shop, stored: Stored) -> None:
    """Rolls `atomic` back, should somebody hide it."""
    with transaction.atomic(), connections["default"].cursor() as cursor:
        cursor.execute(
            "ALTER TABLE outbox.message ADD CHECK (convert_from(body, 'UTF8') NOT LIKE '%7%')"
        )
    with transaction.atomic(), suppress(RowRefused):
        calls = ((number, 0) for number in range(10))
        shop.app.outbox.send_many(shop.add, calls)
    assert stored.rows() == []


def test_psycopg2(
    shop: Shop, stored: Stored, alike: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is told of each message by itself, unless no code can come between; savepoints are exact."""
    monkeypatch.setattr(DjangoTarget, "_driver", lambda _: None)

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        with suppress(KeyError), transaction.atomic():
            yield from ((number, 0) for number in range(5, 10))
            raise KeyError
        yield (10, 0)

    with transaction.atomic():
        shop.app.outbox.send_many(shop.add, calls())
        assert alike == [1] * 9
        shop.app.outbox.send_many(shop.add, [(number, 0) for number in range(11, 20)])
    assert (stored.args(), alike[9:]) == ([*range(5), *range(10, 20)], [7])
