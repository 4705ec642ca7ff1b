"""FastAPI: what an endpoint sends is in the transaction of its `yield` dependency.

`outbox=` reaches it in every kind of endpoint. A block that a synchronous dependency opens does
not: that is an error, never a task that goes its own way.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, cast

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from celery_outbox import NoTransaction, OutboxCelery
from tests.ecosystem.conftest import Stored

celery = OutboxCelery("shop", set_as_current=False)
blocking = sessionmaker()
asynchronous = async_sessionmaker()
api = FastAPI()


@celery.task(name="shop.bill")
def bill(item: str) -> None:
    """Send the invoice."""


def open_session() -> Iterator[Session]:
    """Give a request its transaction."""
    with blocking.begin() as session:
        yield session


def open_block() -> Iterator[Session]:
    """Give it one, and open a block around the endpoint, which it does not reach."""
    with blocking.begin() as session, celery.outbox.using(session):
        yield session


async def open_async_session() -> AsyncIterator[AsyncSession]:
    """Give a request its asynchronous transaction."""
    async with asynchronous.begin() as session:
        yield session


Blocking = Annotated[Session, Depends(open_session, scope="function")]
Blocked = Annotated[Session, Depends(open_block, scope="function")]
Async = Annotated[AsyncSession, Depends(open_async_session, scope="function")]


def reject(item: str) -> None:
    """Have nobody buy gold."""
    if item == "gold":
        raise HTTPException(409, "sold out")


@api.post("/blocking/{item}")
def place(item: str, session: Blocking) -> str:
    """Run in a thread."""
    bill.apply_async((item,), outbox=session)  # type: ignore[call-arg]  # celery-types knows it not
    reject(item)
    return item


@api.post("/async/{item}")
async def place_async(item: str, session: Async) -> str:
    """Run in the event loop."""
    bill.apply_async((item,), outbox=session)  # type: ignore[call-arg]  # the same
    reject(item)
    return item


@api.post("/block/{item}")
async def place_in_a_block(item: str, session: Async) -> str:
    """Open the block in the endpoint."""
    async with celery.outbox.using(session):
        bill.delay(item)
    reject(item)
    return item


@api.post("/unreached/{item}")
def place_unreached(item: str, session: Blocked) -> str:
    """Rely on a block that was opened elsewhere."""
    bill.delay(item)
    return item


@pytest.fixture
def client(database: str) -> Any:
    """A client of the API, whose sessions are the test database's."""
    engine = create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    running = create_async_engine(database.replace("postgresql:", "postgresql+asyncpg:"))
    blocking.configure(bind=engine)
    asynchronous.configure(bind=running)
    with TestClient(api) as client:
        yield client
        cast("Any", client.portal).call(running.dispose)
    engine.dispose()


@pytest.mark.parametrize("endpoint", ["blocking", "async", "block"])
def test_the_dependency_is_the_transaction(client: Any, stored: Stored, endpoint: str) -> None:
    """When the answer is there, the task is committed; an HTTPException takes it back."""
    assert client.post(f"/{endpoint}/tea").status_code == 200
    assert [task for task, _ in stored()] == ["shop.bill"]

    assert client.post(f"/{endpoint}/gold").status_code == 409
    assert client.post(f"/{endpoint}/lamp").status_code == 200
    assert len(stored()) == 2


def test_a_block_of_a_blocking_dependency_does_not_reach(client: Any, stored: Stored) -> None:
    """FastAPI enters it in a context of its own: the send says that it has no transaction."""
    with pytest.raises(NoTransaction):
        client.post("/unreached/tea")

    assert stored() == []
