"""The same, safe: the import, the class, and one block."""

import os

import psycopg

from celery_outbox import OutboxCelery

app = OutboxCelery("shop", broker=os.environ["BROKER_URL"])


@app.task
def send_invoice(order_id):
    """Send the invoice of an order."""


with psycopg.connect(os.environ["DATABASE_URL"]) as connection, app.outbox.using(connection):
    connection.execute("CREATE TABLE IF NOT EXISTS orders (id int)")
    connection.execute("INSERT INTO orders VALUES (42)")
    send_invoice.delay(42)
