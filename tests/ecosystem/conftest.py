"""What a crossing needs: a program of its package, rows as they were stored, a broker that is down.

Each file is run in an environment that has its package, by `make test-ecosystem`.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from servers.ports import free_port
from tests.fixtures.programs import CHECKOUT, Program

ProgramFactory = Callable[..., Program]
Stored = Callable[[], list[tuple[str, dict[str, Any]]]]


@pytest.fixture
def down() -> str:
    """The URL of a broker that is not there."""
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def program(tmp_path: Path) -> Iterator[ProgramFactory]:
    """Start a command of a package, such as ``program("celery", "-A", "shop", "beat")``."""
    paths = os.pathsep.join(map(str, (tmp_path, CHECKOUT, CHECKOUT / "tools")))
    usual = {k: v for k, v in os.environ.items() if not k.startswith("OUTBOX_")}
    with ExitStack() as programs:

        def start(*arguments: str, **environment: str) -> Program:
            own = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment}
            started = Program([sys.executable, "-m", *arguments], tmp_path, usual | own)
            programs.callback(started.kill)
            return started

        yield start


@pytest.fixture
def stored(database: str) -> Stored:
    """Task and headers of each row that is committed, oldest first."""

    def rows() -> list[tuple[str, dict[str, Any]]]:
        with psycopg.connect(database) as looking:
            query = "SELECT task, headers FROM outbox.message ORDER BY id"
            return looking.execute(query).fetchall()

    return rows


@pytest.fixture
def effects(database: str) -> Iterator[Callable[[], list[str]]]:
    """What tasks have written into the table `effect`, sorted."""
    with psycopg.connect(database, autocommit=True) as looking:
        looking.execute("CREATE TABLE effect (what text)")

        def read() -> list[str]:
            found = looking.execute("SELECT what FROM effect").fetchall()
            return sorted(what for (what,) in found)

        yield read
