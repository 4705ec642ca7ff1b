"""Orders with FastAPI and AsyncSession: `uvicorn shop:api`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from celery_outbox import OutboxCelery

DATABASE_URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")

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


engine = create_async_engine(DATABASE_URL)
sessions = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the table, and close the connections in the end."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


api = FastAPI(lifespan=lifespan)


async def open_session() -> AsyncIterator[AsyncSession]:
    """Give a request its transaction: committed if it goes well, else rolled back."""
    async with sessions.begin() as session:
        yield session


Db = Annotated[AsyncSession, Depends(open_session, scope="function")]


@api.post("/orders/{item}")
async def place_order(item: str, session: Db) -> dict[str, int | str]:
    """Store an order together with its task, or neither."""
    order = Order(item=item)
    session.add(order)
    await session.flush()
    result = send_invoice.apply_async((order.id,), outbox=session)
    if item == "gold":
        raise HTTPException(409, "sold out")
    return {"order": order.id, "task": result.id}


@api.post("/parcels/{item}")
async def pack(item: str, session: Db) -> dict[str, str]:
    """Send several tasks: in a block they need no option of their own."""
    async with app.outbox.using(session):
        app.send_task("warehouse.pack", (item,))
        app.send_task("warehouse.label", (item,))
    return {"packed": item}
