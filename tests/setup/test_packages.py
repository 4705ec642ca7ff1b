"""What the five distributions say of themselves, to people and to an index."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Folder, import name, and command.
PACKAGES = [
    ("producer", "celery_outbox", None),
    ("worker", "celery_inbox", None),
    ("migrations", "outbox_migrations", "outbox-migrate"),
    ("relay", "outbox_relay", "outbox-relay"),
    ("console", "outbox_console", "outbox-console"),
]
FOLDERS = [ROOT / folder for folder, *_ in PACKAGES]


def project(folder: Path) -> dict[str, Any]:
    """The project table of a distribution."""
    return dict(tomllib.loads((folder / "pyproject.toml").read_text())["project"])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_index_learns_what_it_is(folder: Path) -> None:
    """Licence, Pythons, keywords, classifiers and a page; the one version of all five."""
    ours = project(folder)
    installed = metadata(ours["name"])

    assert ours["version"] == project(ROOT)["version"] == installed["Version"]
    assert installed["License-Expression"] == "MIT"
    assert installed["Requires-Python"] == ">=3.11"
    assert "celery" in installed["Keywords"].split(",")
    classifiers = installed.get_all("Classifier") or []
    assert classifiers == sorted(classifiers)
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= {*classifiers}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_its_page_has_no_link_that_an_index_breaks(folder: Path) -> None:
    """An index shows README.md alone: every link is whole, or within the page."""
    links = re.findall(r"\]\(([^)\s]+)\)", (folder / "README.md").read_text())

    assert [link for link in links if not link.startswith(("https://", "#"))] == []


@pytest.mark.parametrize(("folder", "module", "command"), PACKAGES)
def test_it_tells_its_version(folder: str, module: str, command: str | None) -> None:
    """`__version__`, and `--version` where there is a command."""
    version = project(ROOT / folder)["version"]

    assert import_module(module).__version__ == version
    if command:
        program = Path(sys.executable).with_name(command)
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        assert told.stdout == f"{command} {version}\n"
