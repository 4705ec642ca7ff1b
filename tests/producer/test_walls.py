"""The producer's import contracts fail when somebody breaks them."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A word of the contract's name -> where an import is planted that it forbids, and which.
BREAKS = {
    "circle": ("message.py", "import celery_outbox.statements.dedup"),
    "a send goes is decided": ("decision.py", "import celery"),
    "sources are read": ("check/source.py", "import celery"),
    "producer's packages": ("statements/insert.py", "import celery_outbox.targets.psycopg"),
}


@pytest.mark.parametrize("word", BREAKS)
def test_a_breach_is_noticed(tmp_path: Path, word: str) -> None:
    """In a copy of the producer, which keeps the contract until the import is planted."""
    module, line = BREAKS[word]
    _, *parts = (ROOT / "pyproject.toml").read_text().split("[[tool.importlinter.contracts]]\n")
    (contract,) = [part for part in parts if word in str(tomllib.loads(part)["name"])]
    copy = tmp_path / "celery_outbox"
    package = ROOT / "producer" / "celery_outbox"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_package = "celery_outbox"\ninclude_external_packages = true\n'
        f"[[tool.importlinter.contracts]]\n{contract}"
    )

    assert lint(tmp_path) == 0
    with (copy / module).open("a") as file:
        file.write(f"\n{line}\n")
    assert lint(tmp_path) == 1


def lint(folder: Path) -> int:
    """Return how the check of the contracts ends."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=60).returncode
