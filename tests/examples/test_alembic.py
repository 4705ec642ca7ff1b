"""In an Alembic environment of the user's own, our migrations run beside theirs."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.examples.conftest import EXAMPLES, environment
from tests.fixtures.rows import states

Alembic = Callable[..., str]
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
    (filtering,) = re.findall(r"^```python\n(def include_name.*?)^```$", page, re.M | re.S)
    assert filtering in (project / "migrations" / "env.py").read_text()
    commands = re.findall(r"^\$ alembic (.*)$", page, re.MULTILINE)
    assert len(commands) == 6
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


class TestAutogenerate:
    """What Alembic compares with the user's models is the user's alone."""

    @pytest.fixture(params=["outbox", "messaging"])
    def migrated(self, request: pytest.FixtureRequest, project: Path, empty_database: str) -> Any:
        """Run the command on a database that has everything, in a schema of that name."""
        run = partial(alembic, project, empty_database, OUTBOX_SCHEMA=request.param)
        run("upgrade", "heads")
        return run

    def written(self, project: Path, migrated: Alembic) -> str:
        """The revision that `--autogenerate` writes."""
        where = ("--head", "shop@head", "--version-path", "migrations/versions")
        migrated("revision", "--autogenerate", *where, "-m", "more", "--rev-id", "more")
        (revision,) = (project / "migrations" / "versions").glob("more_*.py")
        compile(revision.read_text(), revision, "exec")
        return revision.read_text().partition("def upgrade")[2]

    def test_it_finds_nothing_to_do(self, project: Path, migrated: Alembic) -> None:
        """No table, index or view of ours, whatever their schema."""
        assert "No new upgrade operations detected" in migrated("check")
        assert "op." not in self.written(project, migrated)

    def test_it_finds_what_the_models_say(self, project: Path, migrated: Alembic) -> None:
        """A new column, and nothing else; it goes up, and ours is still there."""
        models = project / "models.py"
        models.write_text(
            models.read_text().replace('''"item"''', '''"note", Text), Column("item"''')
        )

        text = self.written(project, migrated)

        assert re.findall(r"op\.(\w+)\('(\w+)'", text) == [
            ("add_column", "orders"),
            ("drop_column", "orders"),
        ]
        migrated("upgrade", "heads")
        assert "No new upgrade operations detected" in migrated("check")

    def test_without_the_filter_it_would_drop_ours(self, project: Path, migrated: Alembic) -> None:
        """Which is what the filter is for; even then the file is valid Python."""
        env = project / "migrations" / "env.py"
        env.write_text(env.read_text().replace("include_name=include_name,", ""))

        assert "drop_table('message'" in self.written(project, migrated)
