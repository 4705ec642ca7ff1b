"""Flask-SQLAlchemy: what a view sends is in the transaction of `db.session`."""

from typing import Any

import pytest
from flask import Flask, abort
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from celery_outbox import NoTransaction, OutboxCelery
from tests.ecosystem.conftest import Stored


class Base(DeclarativeBase):
    """The tables of the shop."""


class Order(Base):
    """An order somebody placed."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


db: Any = SQLAlchemy(model_class=Base)
celery = OutboxCelery("shop", set_as_current=False)


@celery.task(name="shop.bill")
def bill(order_id: int) -> None:
    """Send the invoice."""


@pytest.fixture
def web(database: str) -> Any:
    """The application, with its tables."""
    web = Flask(__name__)
    web.config["SQLALCHEMY_DATABASE_URI"] = database.replace("postgresql:", "postgresql+psycopg:")
    db.init_app(web)

    @web.post("/orders/<item>")
    def place(item: str) -> str:
        order = Order(item=item)
        with celery.outbox.using(db.session):
            db.session.add(order)
            db.session.flush()
            bill.delay(order.id)
            if item == "gold":
                abort(409)
            db.session.commit()
        return str(order.id)

    @web.post("/forgotten/<item>")
    def forget(item: str) -> str:
        bill.delay(1)
        return item

    with web.app_context():
        Base.metadata.create_all(db.engine)
    yield web
    with web.app_context():
        db.engine.dispose()


def orders(web: Any) -> int:
    """How many are stored."""
    with web.app_context():
        return int(db.session.query(Order).count())


def test_order_and_task_are_one(web: Any, stored: Stored) -> None:
    """A view that commits stores both; one that aborts neither."""
    client = web.test_client()

    assert client.post("/orders/tea").status_code == 200
    assert client.post("/orders/gold").status_code == 409
    assert client.post("/orders/lamp").status_code == 200
    assert orders(web) == 2
    assert [task for task, _ in stored()] == ["shop.bill", "shop.bill"]


def test_a_block_that_was_forgotten_is_an_error(web: Any, stored: Stored) -> None:
    """Not a task that goes its own way."""
    web.testing = True
    with pytest.raises(NoTransaction):
        web.test_client().post("/forgotten/tea")

    assert stored() == []
