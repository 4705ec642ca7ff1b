"""Changes of an order, published in order, and wishes that are fulfilled once: `python shop.py`."""

import os
from typing import Any

import psycopg

from celery_outbox import OutboxCelery

app = OutboxCelery("shop", broker=os.environ.get("BROKER_URL"))


@app.task
def tell_customer(order_id: int, state: str) -> None:
    """Tell the customer what has become of an order."""


@app.task
def update_search_index(order_id: int) -> None:
    """Read the order, and write it into the search index."""


def change_order(connection: psycopg.Connection[Any], order_id: int, state: str) -> None:
    """Change an order; its customer hears of every change, in the order of the changes."""
    with app.outbox.transaction(connection):
        connection.execute("UPDATE orders SET state = %s WHERE id = %s", (state, order_id))
        tell_customer.apply_async((order_id, state), ordering_key=f"order-{order_id}")


def touch_order(connection: psycopg.Connection[Any], order_id: int) -> str:
    """Have the search index updated soon: however often that is wished for, once will do."""
    with app.outbox.transaction(connection):
        wish = update_search_index.apply_async(
            (order_id,), countdown=10, dedup_key=f"index-{order_id}"
        )
    return str(wish.id)


if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (id bigint PRIMARY KEY, state text)")
        connection.execute("INSERT INTO orders VALUES (42, 'new')")
        connection.commit()
        for state in ("paid", "packed", "shipped"):
            change_order(connection, 42, state)
            print(state, touch_order(connection, 42))
