"""What an idempotent task sends is part of its own transaction, whatever library that is of."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from celery_inbox import idempotent
from celery_outbox.dispatch import dispatch_of
from tests.producer.conftest import Shop, Stored, make_shop
from tests.producer.test_worker import REPLACEMENTS, deliver

LIBRARIES: dict[str, Callable[[str], Callable[[], Any]]] = {
    "psycopg": lambda url: lambda: psycopg.connect(url),
    "SQLAlchemy": lambda url: sessionmaker(
        create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    ),
    "Django": lambda url: lambda: "default",
}


def savepoint(library: str, handle: Any) -> AbstractContextManager[Any]:
    """Return a savepoint in the words of the library."""
    if library == "Django":
        from django.db.transaction import atomic  # type: ignore[import-untyped]  # ships no types

        block: AbstractContextManager[Any] = atomic(handle)
    else:
        block = handle.transaction() if library == "psycopg" else handle.begin_nested()
    return block


#: A block in the body, and what was sent inside beside the replacement and is kept.
BETWEEN: dict[str, tuple[Callable[[Shop, str, Any], Any], list[str]]] = {
    "savepoint": (lambda _, library, handle: savepoint(library, handle), []),
    "using": (lambda shop, _, handle: shop.app.outbox.using(handle), ["inside"]),
    "transaction": (lambda shop, _, handle: shop.app.outbox.transaction(handle), ["inside"]),
}

#: How many messages each replacement is at first.
EXPECTED = {"task": 1, "chain": 1, "group": 2, "chord": 2}


@pytest.mark.parametrize("library", LIBRARIES)
def test_sends_in_the_tasks_own_transaction(
    shop: Shop, database: str, django_database: str, stored: Stored, library: str
) -> None:
    """A task that fails sends nothing; one that is delivered twice sends once."""

    @shop.app.task(bind=True, name="shop.order", shared=False)
    @idempotent(LIBRARIES[library](database))
    def order(self: Any, handle: Any, number: int) -> None:
        shop.add.delay(number, 0)
        if number < 0:
            raise LookupError

    assert deliver(shop.app, "shop.order", -1)[0] == "FAILURE"
    assert stored.rows() == []
    assert deliver(shop.app, "shop.order", 1)[0] == "SUCCESS"
    assert deliver(shop.app, "shop.order", 1)[0] == "SUCCESS"
    assert stored.args() == [1]


@pytest.mark.parametrize("with_database", [True, False], ids=["database", "no database"])
@pytest.mark.parametrize("kind", REPLACEMENTS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_replacement_commits_with_the_attempt_that_made_it(
    trap: str,
    database: str,
    django_database: str,
    stored: Stored,
    library: str,
    kind: str,
    with_database: bool,
) -> None:
    """An attempt that loses a race has sent nothing; the next one replaces the task, once."""
    url = {"outbox_database_url": database} if with_database else {}
    shop = make_shop(trap, result_backend="cache+memory://", **url)
    dispatch_of(shop.app).begin_work()
    seen: list[int] = []

    @shop.app.task(bind=True, name="shop.split", shared=False)
    @idempotent(LIBRARIES[library](database))
    def split(self: Any, handle: Any) -> None:
        seen.append(len(stored.rows()))
        try:
            self.replace(REPLACEMENTS[kind](shop))
        finally:
            if len(seen) == 1:
                raise psycopg.errors.SerializationFailure

    assert deliver(shop.app, "shop.split")[0] == "IGNORED"
    assert seen == [0, 0]
    assert [*Counter(row.message_id for row in stored.rows()).values()] == [1] * EXPECTED[kind]
    assert stored.fetch("SELECT result FROM inbox.processed") == [(None,)]
    assert deliver(shop.app, "shop.split")[0] == "IGNORED"
    assert len(stored.rows()) == EXPECTED[kind]


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_replacement_commits_also_from_a_block_of_its_own(
    trap: str, database: str, django_database: str, stored: Stored, library: str, between: str
) -> None:
    """Neither an attempt that loses a race sends it, nor does a savepoint take it back."""
    shop = make_shop(trap, outbox_database_url=database)
    block, kept = BETWEEN[between]
    seen: list[int] = []

    @shop.app.task(bind=True, name="shop.split", shared=False)
    @idempotent(LIBRARIES[library](database))
    def split(self: Any, handle: Any) -> None:
        seen.append(len(stored.rows()))
        try:
            with block(shop, library, handle):
                shop.add.delay("inside", 0)
                self.replace(shop.add.s("instead", 0))
        finally:
            if len(seen) == 1:
                raise psycopg.errors.SerializationFailure

    assert deliver(shop.app, "shop.split")[0] == "IGNORED"
    assert seen == [0, 0]
    assert stored.args() == [*kept, "instead"]
    assert stored.fetch("SELECT result FROM inbox.processed") == [(None,)]
