"""Orders with plain psycopg: `python shop.py tea coffee`."""

import os
import sys
from typing import Any

import psycopg

from celery_outbox import OutboxCelery

DATABASE_URL = os.environ["DATABASE_URL"]

app = OutboxCelery("shop", broker=os.environ.get("BROKER_URL"))


@app.task
def send_invoice(order_id: int) -> None:
    """Send the invoice of an order."""


def place_order(connection: psycopg.Connection[Any], item: str) -> str:
    """Store an order together with its task, or neither."""
    with app.outbox.transaction(connection):
        row = connection.execute(
            "INSERT INTO orders (item) VALUES (%s) RETURNING id", (item,)
        ).fetchone()
        assert row is not None
        result = send_invoice.delay(row[0])
        if item == "gold":
            raise ValueError("sold out")
    return str(result.id)


def place_in_my_own_transaction(connection: psycopg.Connection[Any], item: str) -> None:
    """Join a transaction that is begun and committed elsewhere."""
    with app.outbox.using(connection):
        connection.execute("INSERT INTO orders (item) VALUES (%s)", (item,))
        app.send_task("warehouse.pack", (item,))


def take_back(connection: psycopg.Connection[Any], task_id: str) -> bool:
    """Cancel what is still pending; tell the workers to drop what is not."""
    with app.outbox.transaction(connection):
        taken_back = app.outbox.cancel(connection, task_id)
    if not taken_back:
        app.control.revoke(task_id)
    return taken_back


if __name__ == "__main__":
    with psycopg.connect(DATABASE_URL) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders"
            " (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, item text)"
        )
        place_in_my_own_transaction(connection, "parcel")
    with psycopg.connect(DATABASE_URL) as connection:
        for item in sys.argv[1:]:
            try:
                print(item, place_order(connection, item))
            except ValueError as error:
                print(item, error)
