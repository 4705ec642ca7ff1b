"""The walls of relay, console and bench: each import contract fails when somebody breaks it."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Where the contract of that id is about another package than the relay.
PACKAGES = {
    "console": ROOT / "console" / "outbox_console",
    **dict.fromkeys(("bench", "measured", "experiments"), ROOT / "tools" / "bench"),
}
#: For each contract, where an import is planted that it forbids, and which.
BREAKS = {
    "console": ("postgres/__init__.py", "import outbox_console.app"),
    "wings": ("core/decide.py", "import outbox_relay.postgres.store"),
    "pure": ("settings/names.py", "import kombu"),
    "loop": ("loop/cycle.py", "import outbox_relay.broker.registry"),
    "postgres": ("postgres/store.py", "import redis"),
    "observe": ("observe/metrics.py", "import psycopg"),
    "broker": ("broker/link.py", "import psycopg"),
    "brokers": ("broker/redis/batch.py", "import outbox_relay.broker.amqp.fields"),
    "tracing": ("loop/cycle.py", "import opentelemetry.trace"),
    "traced": ("observe/tracing/spans.py", "import structlog"),
    "lazy": ("operator/status.py", "import kombu"),
    "bench": ("lab.py", "import bench.load.queues"),
    "measured": ("measurements/limit.py", "import bench.report.figures"),
    "experiments": ("measurements/audit.py", "import bench.measurements.limit"),
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
    """In a copy of the package, which keeps the contract until the import is planted."""
    module, line = BREAKS[contract]
    package = PACKAGES.get(contract, ROOT / "relay" / "outbox_relay")
    copy = tmp_path / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.importlinter]\nroot_package = "{package.name}"\n'
        "include_external_packages = true\n"
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
