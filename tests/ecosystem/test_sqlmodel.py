"""SQLModel: its sessions are joined as SQLAlchemy's, which they are."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, Session, SQLModel, create_engine, select
from sqlmodel.ext.asyncio.session import AsyncSession

from celery_outbox import OutboxCelery
from tests.ecosystem.conftest import Stored

celery = OutboxCelery("shop", set_as_current=False)


class Hero(SQLModel, table=True):
    """A table."""

    id: int | None = Field(default=None, primary_key=True)
    name: str


@celery.task(name="shop.greet")
def greet(hero_id: int) -> None:
    """Greet a hero."""


@pytest.fixture
def engine(database: str) -> Any:
    """Its engine, with the tables."""
    engine = create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    SQLModel.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_a_session(engine: Any, stored: Stored) -> None:
    """Row and task commit together, and roll back together."""
    for name, kept in (("Deadpond", True), ("Nobody", False)):
        with Session(engine) as session, celery.outbox.using(session):
            hero = Hero(name=name)
            session.add(hero)
            session.flush()
            greet.delay(hero.id)
            if kept:
                session.commit()

    with Session(engine) as session:
        assert [hero.name for hero in session.exec(select(Hero))] == ["Deadpond"]
    assert [task for task, _ in stored()] == ["shop.greet"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_async_session(engine: Any, database: str, stored: Stored, driver: str) -> None:
    """The same with SQLModel's own AsyncSession."""

    async def place() -> None:
        running = create_async_engine(database.replace("postgresql:", f"postgresql+{driver}:"))
        for name, kept in (("Deadpond", True), ("Nobody", False)):
            async with AsyncSession(running) as session, celery.outbox.using(session):
                hero = Hero(name=name)
                session.add(hero)
                await session.flush()
                greet.delay(hero.id)
                if kept:
                    await session.commit()
        await running.dispose()

    asyncio.run(place())
    assert [task for task, _ in stored()] == ["shop.greet"]
