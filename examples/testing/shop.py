"""A shop to be tested: an order is charged, then its receipt is sent; after three days, a word."""

from typing import Any

import psycopg
from celery import chain

from celery_outbox import OutboxCelery

app = OutboxCelery("shop")


@app.task(autoretry_for=(ConnectionError,), default_retry_delay=60)
def charge(order_id: int) -> str:
    """Take the money; the bank may be away for a while."""
    return f"charged order {order_id}"


@app.task
def send_receipt(order_id: int) -> str:
    """Send the receipt, once the order is charged."""
    return f"receipt of order {order_id}"


@app.task
def ask_for_review(order_id: int) -> None:
    """Ask how it was."""


def place_order(connection: psycopg.Connection[Any], item: str) -> int:
    """Store an order together with all that follows, or neither."""
    with app.outbox.transaction(connection):
        row = connection.execute(
            "INSERT INTO orders (item) VALUES (%s) RETURNING id", (item,)
        ).fetchone()
        assert row is not None
        order_id: int = row[0]
        chain(charge.si(order_id), send_receipt.si(order_id)).apply_async()
        ask_for_review.apply_async((order_id,), countdown=3 * 24 * 3600)
    return order_id
