"""Every example works as it stands, with a broker that is down."""

import difflib
import os
import sys
from pathlib import Path

import psycopg
import pytest

from tests.examples.conftest import EXAMPLES, Run, environment
from tests.fixtures.programs import Program
from tests.fixtures.waiting import wait_until


def sent(url: str) -> list[str]:
    """Return the names of the tasks committed, in order."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT task FROM outbox.message ORDER BY id")
        return [str(task) for (task,) in rows]


def orders(url: str) -> list[str]:
    """Return the items ordered, in order."""
    with psycopg.connect(url) as connection:
        return [str(item) for (item,) in connection.execute("SELECT item FROM orders ORDER BY id")]


def test_psycopg(example: Run, database: str) -> None:
    """Orders and tasks are stored together; what was refused left neither."""
    example("psycopg", database, "shop.py", "tea", "gold", "coffee")

    assert orders(database) == ["parcel", "tea", "coffee"]
    assert sent(database) == ["warehouse.pack", "shop.send_invoice", "shop.send_invoice"]


def test_keys(example: Run, database: str) -> None:
    """Every change is told, one after another; the wish for an update is stored once."""
    printed = example("keys", database, "shop.py").split()

    assert printed[::2] == ["paid", "packed", "shipped"]
    assert len(set(printed[1::2])) == 1
    assert sorted(sent(database)) == ["shop.tell_customer"] * 3 + ["shop.update_search_index"]


@pytest.mark.parametrize("name", ["psycopg", "testing"])
def test_testing(example: Run, database: str, name: str) -> None:
    """The tests of the example pass, and commit nothing."""
    own = ("-o", "pythonpath=.")  # not the checkout's, which has another shop
    example(name, database, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", *own)
    assert sent(database) == []


def test_sqlalchemy(example: Run, database: str) -> None:
    """The same with a Session, and with an AsyncSession."""
    example("sqlalchemy", database, "shop.py", "tea", "gold")

    assert orders(database) == ["tea", "coffee"]
    assert sent(database) == ["shop.send_invoice"] * 2


FASTAPI = """
from fastapi.testclient import TestClient
from shop import api
with TestClient(api) as client:
    assert client.post("/orders/tea").status_code == 200
    assert client.post("/orders/gold").status_code == 409
    assert client.post("/parcels/tea").status_code == 200
"""


def test_fastapi(example: Run, database: str) -> None:
    """A request's transaction holds its tasks; a request that fails sends nothing."""
    example("fastapi", database, "-c", FASTAPI)

    assert orders(database) == ["tea"]
    assert sent(database) == ["shop.send_invoice", "warehouse.pack", "warehouse.label"]


FLASK = """
from shop import web
client = web.test_client()
assert client.post("/orders/tea").status_code == 200
assert client.post("/orders/gold").status_code == 409
assert client.post("/orders/coffee").status_code == 200
"""


def test_flask(example: Run, database: str) -> None:
    """A view's commit takes its tasks along; a view that aborts sends nothing."""
    example("flask", database, "-c", FLASK)

    assert orders(database) == ["tea", "coffee"]
    assert sent(database) == ["shop.send_invoice"] * 2


def test_beat(database: str, tmp_path: Path) -> None:
    """Beat writes rows, and never needs the broker."""
    command = [sys.executable, "-m", "celery", "-A", "shop", "beat", "--schedule=beat.db"]
    paths = os.pathsep.join([str(EXAMPLES / "beat")])
    beat = Program(command, tmp_path, environment(database) | {"PYTHONPATH": paths})
    try:
        wait_until(lambda: "shop.count_stock" in sent(database), 60, "a row sent by beat")
    finally:
        beat.kill()


def test_five_lines(example: Run, database: str) -> None:
    """Safe is five changed lines away, and works while the broker is down."""
    example("five_lines", database, "after.py")
    assert sent(database) == ["shop.send_invoice"]

    before, after = (
        (EXAMPLES / "five_lines" / name).read_text().splitlines()
        for name in ("before.py", "after.py")
    )
    added = [line for line in difflib.ndiff(before, after) if line.startswith("+ ")]
    assert len([line for line in added if line.strip("+ ")]) <= 5
