"""The report at the end of a test session: what was sent outside of a transaction, and where."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
import os
import psycopg, pytest
from celery_outbox import OutboxCelery

pytest_plugins = ["celery_outbox.testing"]

@pytest.fixture
def connection():
    with psycopg.connect(os.environ["OUTBOX_DATABASE_URL"]) as connection:
        yield connection
        connection.rollback()
"""
SHOP = """
from celery_outbox import OutboxCelery

app = OutboxCelery("shop")

@app.task(name="shop.add")
def add(x, y):
    return x + y

@app.task(name="shop.more")
def more():
    add.delay(0, 0)

def careless(x):
    return add.delay(x, 0)

def many():
    app.outbox.send_many(add, ((n, 0) for n in range(30)))
"""
TESTS = """
import shop

def test_one(connection):
    shop.careless(1)
    shop.careless(2)
    shop.many()
    with shop.app.outbox.using(connection):
        shop.careless(3)

def test_two(connection, outbox):
    shop.careless(4)
    with shop.app.outbox.using(connection):
        shop.more.delay()
    assert len(outbox.on(connection).run())
"""
SECTION = "celery-outbox: sent outside of a transaction"
DJANGO_TESTS = """
from unittest.mock import Mock
import django, pytest
from django.conf import settings
from tests.fixtures.django import database_settings
import os

settings.configure(DATABASES={"default": database_settings(os.environ["DATABASE"])})
django.setup()

from django.db import transaction
from django.test import TestCase
import shop

class OrderTest(TestCase):
    def test_careless(self):
        shop.careless(1)

    def test_careful(self):
        with transaction.atomic():
            shop.careless(2)
"""


def session(folder: Path, tests: str, *options: str, **environment: str) -> list[str]:
    """Run these tests in a session of their own; return the lines of the report."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "shop.py").write_text(SHOP)
    (folder / "test_shop.py").write_text(tests)
    (folder / "pytest.ini").touch()
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{root}:{root / 'tools'}", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout
    *_, report = re.split(rf"=+ {SECTION} =+\n", ran.stdout, maxsplit=1)
    return report.splitlines() if report != ran.stdout else []


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_lists_the_lines_that_send(tmp_path: Path, database: str, options: tuple[str, ...]) -> None:
    """Each once, with how often: of the code that is tested, of tasks that run as well."""
    lines = session(tmp_path, TESTS, *options, OUTBOX_DATABASE_URL=database)

    assert lines[:3] == [
        "shop.py:12 in more: shop.add, in the task shop.more",
        "shop.py:15 in careless: shop.add, 3 times",
        "shop.py:18 in many: shop.add, 30 times",
    ]
    assert lines[3].startswith("Each is stored by itself")


def test_is_left_out(tmp_path: Path, database: str) -> None:
    """Where there is nothing, and where that is set."""
    nothing = "import shop\ndef test_nothing(): pass"
    assert session(tmp_path, nothing, OUTBOX_DATABASE_URL=database) == []

    options = ("-o", "outbox_report=false")
    assert session(tmp_path, TESTS, *options, OUTBOX_DATABASE_URL=database) == []


def test_the_transaction_of_a_django_test_does_not_count(tmp_path: Path, database: str) -> None:
    """In production there is none around the view; `atomic` in the code is one."""
    lines = session(tmp_path, DJANGO_TESTS, DATABASE=database, OUTBOX_DATABASE_URL="")

    assert lines[0] == "shop.py:15 in careless: shop.add"
    assert lines[1].startswith("Each is stored by itself")
