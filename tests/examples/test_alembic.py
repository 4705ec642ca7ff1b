"""In an Alembic environment of the user's own, our migrations run beside theirs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.examples.conftest import EXAMPLES, environment
from tests.fixtures.rows import states

PAGE = EXAMPLES.parent / "docs" / "how-to" / "migrations.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example, to which revisions may be added."""
    return Path(shutil.copytree(EXAMPLES / "alembic", tmp_path / "shop"))


def alembic(project: Path, url: str, *arguments: str, **more: str) -> str:
    """Run the command, in the project's folder."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=project,
        env=environment(url) | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_works_as_it_stands(project: Path, empty_database: str) -> None:
    """Its commands, in their order; then an order sends its task, and down goes down."""
    page = PAGE.read_text()
    for block in re.findall(r"^```ini\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        assert block in (project / "alembic.ini").read_text()
    commands = re.findall(r"^\$ alembic (.*)$", page, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        alembic(project, empty_database, *command.split())
    assert "shop_0001" not in alembic(project, empty_database, "current")  # but what came after

    with psycopg.connect(empty_database) as connection:
        connection.execute("INSERT INTO orders (item) VALUES ('tea')")
    assert states(empty_database)["pending"] == 1

    for line in ("shop", "outbox", "inbox"):
        alembic(project, empty_database, "downgrade", f"{line}@base")
    assert alembic(project, empty_database, "current") == ""


def test_another_schema(project: Path, empty_database: str) -> None:
    """Chosen in env.py, it is created with everything in it."""
    alembic(project, empty_database, "upgrade", "outbox@head", OUTBOX_SCHEMA="messaging")

    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT pending FROM messaging.stats").fetchone() == (0,)
