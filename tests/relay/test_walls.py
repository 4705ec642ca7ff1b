"""The walls between the relay's wings hold: each import contract fails when somebody breaks it."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "relay" / "outbox_relay"
#: For each contract, where an import is planted that it forbids, and which.
BREAKS = {
    "wings": ("core/decide.py", "import outbox_relay.postgres.store"),
    "pure": ("settings/names.py", "import kombu"),
    "loop": ("loop/cycle.py", "import outbox_relay.broker.registry"),
    "postgres": ("postgres/store.py", "import redis"),
    "observe": ("observe/metrics.py", "import psycopg"),
    "broker": ("broker/link.py", "import psycopg"),
    "brokers": ("broker/redis/batch.py", "import outbox_relay.broker.amqp.fields"),
    "lazy": ("operator/status.py", "import kombu"),
}


def contracts() -> dict[str, str]:
    """The text of every contract of the root project that has an id, by its id."""
    _, *parts = (ROOT / "pyproject.toml").read_text().split("[[tool.importlinter.contracts]]\n")
    read = {part: tomllib.loads(part) for part in parts}
    return {contract["id"]: part for part, contract in read.items() if "id" in contract}


def test_every_wall_is_tried() -> None:
    """A contract without a row in the table below would be believed, not known."""
    assert contracts().keys() == BREAKS.keys()


@pytest.mark.parametrize("contract", BREAKS)
def test_a_breach_is_noticed(tmp_path: Path, contract: str) -> None:
    """In a copy of the relay, which keeps the contract until the import is planted."""
    module, line = BREAKS[contract]
    copy = tmp_path / "outbox_relay"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_package = "outbox_relay"\ninclude_external_packages = true\n'
        f"[[tool.importlinter.contracts]]\n{contracts()[contract]}"
    )

    assert _lint(tmp_path).returncode == 0
    with (copy / module).open("a") as file:
        file.write(f"\n{line}\n")
    broken = _lint(tmp_path)

    assert broken.returncode == 1
    assert "BROKEN" in broken.stdout


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
