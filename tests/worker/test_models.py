"""A pydantic task may return a model; its duplicate is answered with what Celery made of it."""

from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel, Field

from celery_inbox import ResultNotJSON, idempotent
from tests.worker.ledger import Deliver, Ledger


class Order(BaseModel):
    """A model whose dump depends on how it is dumped."""

    number: int = Field(alias="orderNumber")
    note: str | None = None


@pytest.mark.parametrize("options", [{}, {"by_alias": True, "exclude_none": True}], ids=repr)
def test_a_model_is_stored_as_celery_dumps_it(
    app: Any, ledger: Ledger, deliver: Deliver, options: dict[str, Any]
) -> None:
    """Arguments are validated and the result is dumped, the first time and again."""
    task: Any = app.task(bind=True, pydantic=True, pydantic_dump_kwargs=options)

    @task  # type: ignore[untyped-decorator]  # celery-types does not know pydantic's options
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any, order: Order) -> Order | None:
        conn.execute("INSERT INTO effect (note) VALUES (%s)", (f"charged {order.number}",))
        return order

    expected = Order(orderNumber=7).model_dump(mode="json", **options)
    assert deliver(charge, {"orderNumber": 7}) == expected
    assert deliver(charge, {"orderNumber": 7}) == expected
    assert ledger.effects() == ["charged 7"]


def test_a_model_that_celery_would_not_dump_is_refused(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """Without pydantic=True its result could not be stored by any backend either."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Order:
        return Order(orderNumber=7)

    with pytest.raises(ResultNotJSON, match="returned Order"):
        deliver(charge)
