"""A shop that tells the world what happens in it: `python shop.py tea`."""

import os
import sys
from typing import Any

import psycopg
from kombu import Exchange

from celery_outbox import OutboxCelery

app = OutboxCelery("shop")

ORDERS = Exchange("orders", type="topic")
NEWS = Exchange("news", type="fanout")
CUSTOMS = Exchange("customs", type="headers")
PAYMENTS = Exchange("payments", type="direct")


def place_order(connection: psycopg.Connection[Any], item: str, country: str) -> None:
    """Store an order together with the events that tell of it, or neither."""
    event = {"item": item, "country": country}
    with app.outbox.transaction(connection):
        connection.execute("INSERT INTO orders (item) VALUES (%s)", (item,))
        app.outbox.publish(
            connection, event, exchange=ORDERS, routing_key="order.placed." + country
        )
        app.outbox.publish(connection, event, exchange=NEWS)
        app.outbox.publish(
            connection, event, exchange=CUSTOMS, headers={"country": country}, mandatory=False
        )
        app.outbox.publish(connection, event, exchange=PAYMENTS, routing_key="invoice")


if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (item text)")
        connection.commit()
        for item in sys.argv[1:]:
            for country in ("de", "ch"):
                place_order(connection, item, country)
