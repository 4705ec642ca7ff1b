"""What happens to an order after it is placed. Each task's rows commit with its inbox row."""

from typing import Any

from celery import Task
from celery.signals import task_prerun

from celery_inbox import idempotent
from shop.app import app
from shop.database import Connection, connect, session


class MailServerBusy(Exception):
    """Transient: try again in a moment."""


@app.task(bind=True)
@idempotent(connect)
def reserve(self: Task[..., Any], conn: Connection, order: str, item: str) -> str:
    """Take an item from the shelf: the header of a chord."""
    conn.execute("INSERT INTO shop.reservation VALUES (%s, %s)", (order, item))
    return item


@app.task(bind=True)
@idempotent(connect)
def ship(self: Task[..., Any], conn: Connection, items: list[str], order: str) -> int:
    """Send the parcel when all items are reserved: the body of that chord."""
    conn.execute("INSERT INTO shop.shipment VALUES (%s, %s)", (order, len(items)))
    return len(items)


@app.task(bind=True)
@idempotent(connect)
def create_invoice(self: Task[..., Any], conn: Connection, order: str) -> int:
    """Give the order an invoice number: the first link of a chain."""
    cursor = conn.execute(
        "INSERT INTO shop.invoice (order_id) VALUES (%s) RETURNING number", (order,)
    )
    return int(str(cursor.fetchall()[0][0]))


@app.task(bind=True)
@idempotent(connect)
def send_email(self: Task[..., Any], conn: Connection, invoice: int, order: str) -> None:
    """Mail the invoice: the second link. Every tenth time the mail server is busy at first."""
    subject = f"Invoice {invoice} for your order"
    conn.execute("INSERT INTO shop.email VALUES (%s, %s)", (order, subject))
    if invoice % 10 == 0 and self.request.retries == 0:
        raise self.retry(countdown=1, exc=MailServerBusy())


@app.task(bind=True)
@idempotent(connect)
def notify(self: Task[..., Any], conn: Connection, order: str, channel: str) -> None:
    """Tell the customer: one of a group."""
    conn.execute("INSERT INTO shop.notification VALUES (%s, %s)", (order, channel))


@app.task(bind=True)
@idempotent(connect)
def wrap_gift(self: Task[..., Any], conn: Connection, order: str) -> None:
    """Wrap the parcel, for those who kept the choice."""
    conn.execute("INSERT INTO shop.gift VALUES (%s)", (order,))


@task_prerun.connect
def record_delivery(task_id: str, task: Task[..., Any], **_: object) -> None:
    """Write down that a message arrived, whatever becomes of its task."""
    session(autocommit=True).execute(
        "INSERT INTO shop.delivery VALUES (%s, %s, %s)",
        (task_id, task.request.retries, task.name.rpartition(".")[2]),
    )
