"""What an idempotent task sends is part of its own transaction, whatever library that is of."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from celery_inbox import idempotent
from tests.producer.conftest import Shop, Stored
from tests.producer.test_worker import deliver

LIBRARIES: dict[str, Callable[[str], Callable[[], Any]]] = {
    "psycopg": lambda url: lambda: psycopg.connect(url),
    "SQLAlchemy": lambda url: sessionmaker(
        create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    ),
    "Django": lambda url: lambda: "default",
}


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
