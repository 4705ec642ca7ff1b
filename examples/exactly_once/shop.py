"""Tasks whose effects happen once, however often their messages are delivered."""

import os

import psycopg

from celery_inbox import idempotent, purge, reliable
from celery_outbox import OutboxCelery

app = OutboxCelery("shop", broker=os.environ["BROKER_URL"])
app.conf.outbox_database_url = os.environ["DATABASE_URL"]
app.conf.task_time_limit = 60
reliable(app)


def connect():
    return psycopg.connect(os.environ["DATABASE_URL"])


@app.task(bind=True)
@idempotent(connect)
def charge(self, conn, order_id, amount):
    conn.execute("INSERT INTO charges (order_id, amount) VALUES (%s, %s)", (order_id, amount))
    send_receipt.delay(order_id)  # a row of the same transaction
    return {"order": order_id, "charged": amount}


@app.task(bind=True)
@idempotent(connect)
def send_receipt(self, conn, order_id):
    conn.execute("INSERT INTO receipts (order_id) VALUES (%s)", (order_id,))


@app.task
def forget_old_messages():
    return purge(connect)  # what ran more than 14 days ago


app.conf.beat_schedule = {
    "forget old messages": {"task": "shop.forget_old_messages", "schedule": 3600.0},
}
