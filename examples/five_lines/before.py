"""An order and its task, as it is often written: each can be lost without the other."""

import os

import psycopg
from celery import Celery

app = Celery("shop", broker=os.environ["BROKER_URL"])


@app.task
def send_invoice(order_id):
    """Send the invoice of an order."""


with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS orders (id int)")
    connection.execute("INSERT INTO orders VALUES (42)")
    send_invoice.delay(42)
