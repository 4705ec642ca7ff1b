"""The five distributions, as their project files describe them."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("producer", "relay", "worker", "migrations", "console")


class Unreleasable(RuntimeError):
    """Why this must not be uploaded."""


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution: its name on an index, its import name, its commands and its extras."""

    name: str
    version: str
    folder: str
    commands: tuple[str, ...]
    extras: tuple[str, ...]

    @property
    def module(self) -> str:
        """`celery_outbox`."""
        return self.name.replace("-", "_")

    @property
    def stem(self) -> str:
        """How the names of its files begin: `celery_outbox-0.1.0`."""
        return f"{self.module}-{self.version}"


def packages(root: Path = ROOT) -> list[Package]:
    """All five; they have one version, that of the workspace."""
    wanted = _project(root)["version"]
    found = [_package(root, folder) for folder in FOLDERS]
    for package in found:
        if package.version != wanted:
            raise Unreleasable(
                f"{package.folder}/pyproject.toml says version {package.version}, "
                f"pyproject.toml {wanted}: all have one version"
            )
    return found


def _package(root: Path, folder: str) -> Package:
    project = _project(root / folder)
    return Package(
        project["name"],
        project["version"],
        folder,
        tuple(project.get("scripts", ())),
        tuple(project.get("optional-dependencies", ())),
    )


def _project(folder: Path) -> dict[str, Any]:
    return dict(tomllib.loads((folder / "pyproject.toml").read_text())["project"])
