"""Orders with Flask and SQLAlchemy: `flask --app shop run`."""

import os
from typing import Any

from flask import Flask, abort
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

from celery_outbox import OutboxCelery

DATABASE_URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://")

app = OutboxCelery("shop", broker=os.environ.get("BROKER_URL"))


@app.task
def send_invoice(order_id: int) -> None:
    """Send the invoice of an order."""


class Base(DeclarativeBase):
    """The tables of the shop."""


class Order(Base):
    """An order somebody placed."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


engine = create_engine(DATABASE_URL)
session = scoped_session(sessionmaker(engine))
Base.metadata.create_all(engine)

web = Flask(__name__)


@web.teardown_appcontext
def close_session(_: BaseException | None) -> None:
    """Give the connection back; what was not committed rolls back."""
    session.remove()


@web.post("/orders/<item>")
def place_order(item: str) -> dict[str, Any]:
    """Store an order together with its task, or neither."""
    with app.outbox.using(session):
        order = Order(item=item)
        session.add(order)
        session.flush()
        result = send_invoice.delay(order.id)
        if item == "gold":
            abort(409, "sold out")
        session.commit()
        return {"order": order.id, "task": result.id}
