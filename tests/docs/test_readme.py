"""The README's code runs as it stands, but for the SQL it leaves to the reader."""

import re
from pathlib import Path
from typing import Any

import psycopg

from tests.fixtures.rows import states

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
INSERT = '"INSERT INTO orders ..."'


def blocks(language: str) -> list[str]:
    """The blocks of code in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_its_python_is_safe(database: str) -> None:
    """The first block shows what is wrong; the others store an order with its task, and charge."""
    wrong, right, charging = blocks("python")
    assert INSERT in wrong
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE orders (id int)")
        connection.commit()
        names: dict[str, Any] = {
            "__name__": "readme",  # its task is known to every later app of this process
            "connection": connection,
            "connect": lambda: psycopg.connect(database),
            "order_id": 42,
        }
        exec(right.replace(INSERT, '"INSERT INTO orders VALUES (42)"'), names)
        exec(charging, names)

        assert connection.execute("SELECT id FROM orders").fetchall() == [(42,)]
    assert states(database)["pending"] == 1
    assert names["charge"].name.endswith("charge")


def test_its_sql_runs(database: str) -> None:
    """Every statement, on a fresh outbox."""
    (statements,) = blocks("sql")
    with psycopg.connect(database) as connection:
        for statement in re.sub("--.*", "", statements).split(";"):
            if statement.strip():
                connection.execute(statement.encode())
    assert states(database)["pending"] == 1
