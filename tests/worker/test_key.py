"""key= lets the task's arguments, and not the message id, say what is a duplicate."""

from typing import Any

import pytest
from celery import Celery

from celery_inbox import idempotent
from tests.worker.ledger import Deliver, Ledger

NOTE = "INSERT INTO effect (note) VALUES (%s)"


def test_a_key_makes_two_messages_with_one_meaning_run_once(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """key= sees the task's arguments; its value counts per task."""

    @app.task(bind=True)
    @idempotent(ledger.connect, key=lambda order_id, note=None: f"order-{order_id}")
    def charge(self: Any, conn: Any, order_id: Any, note: Any = None) -> Any:
        conn.execute(NOTE, (f"charge {order_id}",))
        return self.request.id

    @app.task(bind=True)
    @idempotent(ledger.connect, key=lambda order_id: f"order-{order_id}")
    def ship(self: Any, conn: Any, order_id: Any) -> Any:
        conn.execute(NOTE, (f"ship {order_id}",))

    assert deliver(charge, 7, id="a") == "a"
    assert deliver(charge, 7, "again", id="b") == "a"
    deliver(charge, 8, id="c")
    deliver(ship, 7, id="d")

    assert ledger.effects() == ["charge 7", "charge 8", "ship 7"]


@pytest.mark.parametrize("chosen", [None, "", 7])
def test_a_key_that_is_no_string_is_refused(
    app: Celery, ledger: Ledger, deliver: Deliver, chosen: Any
) -> None:
    """A key of None would make all messages one."""

    @app.task(bind=True, name="charge")
    @idempotent(ledger.connect, key=lambda: chosen)
    def charge(self: Any, conn: Any) -> Any:
        pytest.fail("ran without a key")

    with pytest.raises(TypeError, match=r"charge: key= returned (NoneType|an empty string|int), "):
        deliver(charge)
