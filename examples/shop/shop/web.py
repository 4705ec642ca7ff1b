"""The shop's HTTP API: an order and its tasks are one transaction, or there is neither.

It never talks to the broker: while that is away, orders are taken all the same.
"""

import os
from typing import Any
from uuid import uuid4

import psycopg
from flask import Blueprint, Flask, abort, request, url_for
from psycopg.rows import dict_row

from shop.database import TABLES
from shop.orders import place

# What has become of an order so far, one row.
PROGRESS = """
SELECT id AS order, customer,
    ARRAY(SELECT item FROM shop.reservation r WHERE r.order_id = o.id ORDER BY item) AS reserved,
    (SELECT count(*) FROM shop.shipment s WHERE s.order_id = o.id) AS shipments,
    (SELECT count(*) FROM shop.invoice i WHERE i.order_id = o.id) AS invoices,
    (SELECT count(*) FROM shop.email e WHERE e.order_id = o.id) AS emails,
    (SELECT count(*) FROM shop.notification n WHERE n.order_id = o.id) AS notifications
FROM shop.orders o WHERE id = %s
"""

orders = Blueprint("orders", __name__)


def open_shop() -> Flask:
    """Create the tables that are missing, and return the application."""
    with _connect() as connection:
        connection.execute(TABLES)
    shop = Flask("shop")
    shop.register_blueprint(orders)
    shop.register_error_handler(psycopg.OperationalError, _try_again)
    return shop


@orders.get("/health")
def health() -> dict[str, str]:
    """Say whether orders can be taken."""
    with _connect() as connection:
        connection.execute("SELECT 1")
    return {"shop": "open"}


@orders.post("/orders")
def place_order() -> tuple[dict[str, str], int, dict[str, str]]:
    """Take an order: {"customer": "Ada", "items": ["teapot", "lamp"]}."""
    match request.get_json():
        case {"customer": str(customer), "items": [_, *_] as items} if _are_names(items):
            order = uuid4().hex
        case _:
            abort(400, 'send {"customer": "Ada", "items": ["teapot", "lamp"]}')
    with _connect() as connection:
        place(connection, order, customer, items)
    return {"order": order}, 201, {"Location": url_for("orders.show_order", order=order)}


@orders.get("/orders/<order>")
def show_order(order: str) -> dict[str, Any]:
    """Show what the tasks of an order have done so far."""
    with _connect() as connection:
        progress = connection.cursor(row_factory=dict_row).execute(PROGRESS, (order,)).fetchone()
    return progress or abort(404, "no such order")


def _connect() -> psycopg.Connection[tuple[object, ...]]:
    """A connection whose block is one transaction."""
    return psycopg.connect(os.environ["OUTBOX_DATABASE_URL"], connect_timeout=3)


def _are_names(items: list[object]) -> bool:
    return all(isinstance(item, str) and item for item in items)


def _try_again(_: psycopg.OperationalError) -> tuple[dict[str, str], int, dict[str, str]]:
    return {"error": "the database is away"}, 503, {"Retry-After": "1"}
