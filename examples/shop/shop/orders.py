"""Placing an order: business rows and tasks in the caller's one transaction."""

from celery import chain, chord, group

from shop.app import app
from shop.database import Connection
from shop.tasks import create_invoice, notify, reserve, send_email, ship, wrap_gift

CHANNELS = ("sms", "push")


class ChangedMind(Exception):
    """The customer unticked the gift wrapping: only that part of the order is taken back."""


def place(conn: Connection, order: str, customer: str, items: list[str]) -> None:
    """Insert the order and send what follows from it; nothing is sent unless `conn` commits."""
    conn.execute("INSERT INTO shop.orders (id, customer) VALUES (%s, %s)", (order, customer))
    with app.outbox.using(conn):
        chord([reserve.s(order, item) for item in items], ship.s(order)).delay()
        chain(create_invoice.s(order), send_email.s(order)).delay()
        group(notify.s(order, channel) for channel in CHANNELS).delay()


def choose_gift_wrap(conn: Connection, order: str, *, keeps_it: bool) -> None:
    """Add gift wrapping to an order, in a savepoint that a change of mind rolls back."""
    try:
        with conn.transaction(), app.outbox.using(conn):
            wrap_gift.delay(order)
            if not keeps_it:
                raise ChangedMind
    except ChangedMind:
        pass
