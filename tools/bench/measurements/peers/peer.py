"""A peer: what to install, how to fill its table, and how to drain it; and a peer installed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from bench.lab import Lab, Unbelievable
from bench.load.queues import Route

#: The longest that any of its programs may take, in seconds.
PATIENCE_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Peer:
    """A released package.

    `create` makes its `table`, `store` stores one task in it, `copies` is SQL that makes `{total}`
    rows of this one, and `relay` drains it.
    """

    name: str
    version: str
    #: What else it needs.
    requirements: tuple[str, ...]
    #: Its program, by file name.
    files: Mapping[str, str]
    environment: Mapping[str, str]
    table: str
    create: tuple[str, ...]
    store: tuple[str, ...]
    copies: str
    relay: tuple[str, ...]

    @property
    def package(self) -> str:
        """As it is asked for."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Installed:
    """A peer, ready to run."""

    peer: Peer
    python: Path
    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> None:
        """Run its Python until it ends."""
        ran = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        if ran.returncode:
            raise Unbelievable(f"{self.peer.package} failed: {ran.stderr[-500:]}")


def install(peer: Peer, lab: Lab, broker: str, route: Route) -> Installed:
    """Install it, once, for this database, broker and queue."""
    folder = lab.folder.parent / "peers" / peer.package
    python = folder / "env" / "bin" / "python"
    if not python.exists():
        _make(peer, folder, python)
    for name, text in peer.files.items():
        (folder / name).write_text(text)
    parts = conninfo_to_dict(lab.database_url)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
    database = {f"PEER_{name}": str(parts.get(part) or "") for name, part in names.items()}
    environment = {
        **os.environ,
        **peer.environment,
        **database,
        "PEER_PORT": str(parts.get("port") or 5432),
        "PEER_BROKER": broker,
        "PEER_QUEUE": route.queue,
        "PEER_QUEUE_ARGUMENTS": json.dumps(dict(route.kind.arguments)),
        "PYTHONPATH": str(folder),
    }
    return Installed(peer, python, folder, environment)


def _make(peer: Peer, folder: Path, python: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    uv = str(Path(sys.executable).parents[2] / ".uv" / "bin" / "uv")
    for command in (
        [uv, "venv", "-q", "--python", sys.executable, str(folder / "env")],
        [uv, "pip", "install", "-q", "--python", str(python), peer.package, *peer.requirements],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if ran.returncode:
            shutil.rmtree(folder)
            raise Unbelievable(f"{peer.package} could not be installed: {ran.stderr[-500:]}")
