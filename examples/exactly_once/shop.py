"""Tasks whose effects happen once, however often their messages are delivered."""

import os
from typing import Any

from celery_inbox import idempotent, purge, reliable
from celery_outbox import OutboxCelery

DATABASE_URL = os.environ["DATABASE_URL"]

app = OutboxCelery("shop", broker=os.environ["BROKER_URL"])
app.conf.outbox_database_url = DATABASE_URL
app.conf.task_time_limit = 60
reliable(app)


@app.task(bind=True)
@idempotent(DATABASE_URL)
def charge(self: Any, conn: Any, order_id: int, amount: int) -> dict[str, int]:
    """Charge a customer: the row and the next task are one commit with the inbox row."""
    conn.execute("INSERT INTO charges (order_id, amount) VALUES (%s, %s)", (order_id, amount))
    send_receipt.delay(order_id)
    return {"order": order_id, "charged": amount}


@app.task(bind=True)
@idempotent(DATABASE_URL)
def send_receipt(self: Any, conn: Any, order_id: int) -> None:
    """Send the receipt, once."""
    conn.execute("INSERT INTO receipts (order_id) VALUES (%s)", (order_id,))


@app.task
def forget_old_messages() -> int:
    """Forget what ran more than two weeks ago."""
    return purge(DATABASE_URL)


app.conf.beat_schedule = {
    "forget old messages": {"task": "shop.forget_old_messages", "schedule": 3600.0},
}
