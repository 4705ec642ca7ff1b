"""FastAPI's tutorial "SQL (Relational) Databases" (heroes, with SQLModel), made safe."""

import pytest

from tests.tutorials.conftest import Project

MAIN = """
import os
from typing import Annotated

from celery import Celery
from fastapi import Depends, FastAPI, HTTPException, Query
from sqlmodel import Field, Session, SQLModel, create_engine, select

celery = Celery("heroes", broker=os.environ["BROKER_URL"])


@celery.task(name="heroes.greet")
def greet(hero_id: int) -> None:
    with Session(engine) as session:
        assert session.get(Hero, hero_id).name == "Deadpond"


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True)
    age: int | None = Field(default=None, index=True)
    secret_name: str


engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:", 1))


def create_db_and_tables():
    SQLModel.metadata.create_all(engine)


def get_session():
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]

app = FastAPI()


@app.on_event("startup")
def on_startup():
    create_db_and_tables()


@app.post("/heroes/")
def create_hero(hero: Hero, session: SessionDep) -> Hero:
    session.add(hero)
    session.commit()
    session.refresh(hero)
    greet.delay(hero.id)
    return hero


@app.get("/heroes/")
def read_heroes(
    session: SessionDep,
    offset: int = 0,
    limit: Annotated[int, Query(le=100)] = 100,
) -> list[Hero]:
    heroes = session.exec(select(Hero).offset(offset).limit(limit)).all()
    return heroes


@app.get("/heroes/{hero_id}")
def read_hero(hero_id: int, session: SessionDep) -> Hero:
    hero = session.get(Hero, hero_id)
    if not hero:
        raise HTTPException(status_code=404, detail="Hero not found")
    return hero
"""

ASK = """
from fastapi.testclient import TestClient
from main import app

with TestClient(app) as client:
    hero = {"name": "Deadpond", "secret_name": "Dive Wilson"}
    for _ in range(2):
        assert client.post("/heroes/", json=hero).status_code == 200
    assert [each["name"] for each in client.get("/heroes/").json()] == ["Deadpond"] * 2
"""


@pytest.mark.parametrize("project", ["fastapi"], indirect=True)
def test_the_heroes_are_safe(project: Project) -> None:
    """Heroes are created while the broker is down; they are greeted when it is there."""
    project.write("main.py", MAIN)
    make_safe(project)

    worker = project.proves_safe(ASK, tasks=2, app="main.celery")

    assert "Task heroes.greet" in worker.output()


def make_safe(project: Project) -> None:
    """What docs/how-to/fastapi.md says: the class, and the session named for the call."""
    imported = "from celery_outbox import OutboxCelery"
    project.change("main.py", "from celery import Celery", imported, by_the_page=imported)
    project.change("main.py", "= Celery(", "= OutboxCelery(", by_the_page="OutboxCelery(")
    project.change(
        "main.py",
        "    session.commit()\n    session.refresh(hero)\n    greet.delay(hero.id)\n",
        "    session.flush()\n"
        "    greet.apply_async((hero.id,), outbox=session)\n"
        "    session.commit()\n    session.refresh(hero)\n",
        by_the_page="outbox=session",
    )
