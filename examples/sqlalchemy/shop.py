"""Orders with SQLAlchemy: `python shop.py tea coffee`."""

import asyncio
import os
import sys

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from celery_outbox import OutboxCelery

DATABASE_URL = os.environ["DATABASE_URL"]

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


engine = create_engine(DATABASE_URL.replace("postgresql://", "postgresql+psycopg://"))


def place_order(item: str) -> None:
    """Store an order together with its task, or neither."""
    with Session(engine) as session, session.begin(), app.outbox.using(session):
        order = Order(item=item)
        session.add(order)
        session.flush()
        send_invoice.delay(order.id)
        if item == "gold":
            raise ValueError("sold out")


async def place_order_async(item: str) -> None:
    """Do the same on asyncio; sending needs no await."""
    async_engine = create_async_engine(
        DATABASE_URL.replace("postgresql://", "postgresql+asyncpg://")
    )
    async with AsyncSession(async_engine) as session, app.outbox.using(session):
        order = Order(item=item)
        session.add(order)
        await session.flush()
        send_invoice.delay(order.id)
        await session.commit()
    await async_engine.dispose()


if __name__ == "__main__":
    Base.metadata.create_all(engine)
    for item in sys.argv[1:]:
        try:
            place_order(item)
        except ValueError as error:
            print(item, error)
    asyncio.run(place_order_async("coffee"))
