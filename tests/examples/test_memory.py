"""What a request leaves behind once it is served, in each example that sends: nothing."""

import json
from pathlib import Path

import pytest

from tests.examples.conftest import Run

#: What makes `request()` of an example. Where one refuses gold, half of the orders are gold.
SERVES = {
    "psycopg": """
import psycopg, shop

def request():
    with psycopg.connect(shop.DATABASE_URL) as connection:
        with suppress(ValueError):
            shop.take_back(connection, shop.place_order(connection, next(items)))
        shop.place_in_my_own_transaction(connection, "parcel")

with psycopg.connect(shop.DATABASE_URL) as connection:
    connection.execute("CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, item text)")
""",
    "keys": """
import psycopg, shop

connection = psycopg.connect(os.environ["DATABASE_URL"])
connection.execute("CREATE TABLE orders (id bigint PRIMARY KEY, state text)")
connection.commit()

def request():
    shop.change_order(connection, 42, "paid")
    shop.touch_order(connection, 42)
""",
    "events": """
import psycopg, shop

connection = psycopg.connect(os.environ["DATABASE_URL"])
connection.execute("CREATE TABLE orders (item text)")
connection.commit()

def request():
    shop.place_order(connection, "tea", "ch")
""",
    "sqlalchemy": """
import asyncio, shop

shop.Base.metadata.create_all(shop.engine)

def request():
    with suppress(ValueError):
        shop.place_order(next(items))
    asyncio.run(shop.place_order_async("coffee"))
""",
    "flask": """
from shop import web

client = web.test_client()

def request():
    client.post("/orders/" + next(items))
""",
    "fastapi": """
from fastapi.testclient import TestClient
from shop import api

client = TestClient(api).__enter__()

def request():
    client.post("/orders/" + next(items))
    client.post("/parcels/tea")
""",
    "django": """
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
from django.conf import settings
from django.core.management import call_command
from django.test import RequestFactory

django.setup()
call_command("migrate", verbosity=0)
settings.DEBUG = False  # with it, Django keeps every query
from shop.urls import place_order

requests = RequestFactory()  # Django's test client keeps something of every request

def request():
    path = {"tea": "/orders/", "gold": "/orders/?reject"}[next(items)]
    with suppress(ValueError):
        place_order(requests.post(path, {"item": "tea"}))
""",
    "beat": """
import shop
from celery.beat import Scheduler

scheduler = Scheduler(app=shop.app)
entry = scheduler.Entry(task="shop.count_stock", schedule=1.0, app=shop.app)

def request():
    scheduler.apply_async(entry, advance=False)
""",
    "exactly_once": """
import psycopg, shop
from celery.app.trace import build_tracer

with psycopg.connect(shop.DATABASE_URL) as connection:
    connection.execute("CREATE TABLE charges (order_id int, amount int)")
deliver = build_tracer(shop.charge.name, shop.charge, app=shop.app)

def request():
    message_id = str(uuid4())
    for _ in range(2):  # the second is a duplicate
        message = {"id": message_id, "is_eager": False, "called_directly": False}
        assert deliver(message_id, [1, 5], {}, message).info is None
""",
    "shop": """
os.environ["SHOP_RESULTS_URL"] = "cache+memory://"  # without one Celery makes no chord
from shop.web import open_shop

os.environ["OUTBOX_DATABASE_URL"] = os.environ["DATABASE_URL"]
client = open_shop().test_client()

def request():
    answer = client.post("/orders", json={"customer": "Ada", "items": ["teapot", "lamp"]})
    client.get(answer.headers["Location"])
""",
    "testing": """
import psycopg, shop

connection = psycopg.connect(os.environ["DATABASE_URL"])
connection.execute("CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, item text)")
connection.commit()

def request():
    shop.place_order(connection, "tea")
""",
    "five_lines": """
import after, psycopg

def request():
    with psycopg.connect(os.environ["DATABASE_URL"]) as conn, after.app.outbox.using(conn):
        after.send_invoice.delay(42)
""",
}
PROGRAM = """
import os
from contextlib import suppress
from itertools import cycle
from uuid import uuid4

items = cycle(["tea", "gold"])
{serves}
from living import tell_what_is_left
tell_what_is_left(request, {requests})
"""
#: Of these, none at all may be left: a session, a connection, an app.
NONE_LEFT = ("Session", "Connection", "connection", "Celery")


@pytest.mark.parametrize(
    "requests",
    [
        300,
        pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
@pytest.mark.parametrize("name", SERVES)
def test_nothing_is_left(name: str, requests: int, example: Run, database: str) -> None:
    """No session, connection or app, and of any other class fewer than one in four requests."""
    printed = example(
        name,
        database,
        "-c",
        PROGRAM.format(serves=SERVES[name], requests=requests),
        PYTHONPATH=str(Path(__file__).parent),
        seconds=100 + requests / 2,  # a request takes 0.1 s where two others share the core
    )
    left = json.loads(printed.splitlines()[-1])

    assert [kind for kind in left if kind.endswith(NONE_LEFT)] == []
    assert {kind: more for kind, more in left.items() if more > requests / 4} == {}


def test_every_example_that_sends_is_here() -> None:
    """A new one gets its line."""
    examples = Path(__file__).resolve().parents[2] / "examples"
    sending = {
        path.relative_to(examples).parts[0]
        for path in examples.rglob("*.py")
        if "OutboxCelery" in path.read_text()
    }

    assert sending == set(SERVES)
