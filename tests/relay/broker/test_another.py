"""A third broker is one package and one line: the rest of the relay finds it there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.rows import commit_rows, states

PACKAGE = Path(__file__).parents[3] / "relay" / "outbox_relay"
LINE = "BROKERS: Final[tuple[Broker, ...]] = (amqp.BROKER, redis.BROKER)"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the relay that knows the broker of paper.py."""
    source = tmp_path / "source"
    copy = source / "outbox_relay"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    registry = copy / "broker" / "registry.py"
    text = registry.read_text()
    assert LINE in text
    registry.write_text(
        text.replace("broker import amqp, redis\n", "broker import amqp, paper, redis\n").replace(
            LINE, LINE.replace(")", ", paper.BROKER)")
        )
    )
    (copy / "broker" / "paper").mkdir()
    shutil.copy(Path(__file__).with_name("paper.py"), copy / "broker" / "paper" / "__init__.py")
    return source


def test_it_is_published_to_checked_and_explained(
    source: Path, database: str, tmp_path: Path
) -> None:
    """Its scheme is a URL's, its setting a variable and a flag, its check a part of doctor."""
    folder = tmp_path / "filed"
    folder.mkdir()

    def relay(*arguments: str) -> str:
        urls = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": "paper://desk"}
        environment = {**os.environ, **urls, "OUTBOX_PAPER_FOLDER": str(folder)}
        command = [sys.executable, "-m", "outbox_relay", *arguments]
        done = subprocess.run(
            command, cwd=source, env=environment, capture_output=True, text=True, timeout=60
        )
        return done.stdout + done.stderr

    sent = commit_rows(database, 3)

    relay("run", "--drain")

    assert states(database) == {"pending": 0, "scheduled": 0, "sent": 3, "dead": 0}
    assert {path.name for path in folder.iterdir()} == set(sent)
    assert f"files in {folder}" in relay("doctor")
    assert "--paper-folder" in relay("run", "--help")
    assert "valkeys, paper" in relay("run", "--broker-url", "scroll://desk")
