"""A private etcd of one node: what Patroni keeps its leader's key in."""

import os
import shutil
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from servers import debian
from servers.ports import free_port
from servers.server import Command, Server

BUNDLE: Final = debian.Bundle(
    title="etcd",
    package="etcd-server",
    prefixes=("etcd-server",),
    way_out="Install it (apt-get install etcd-server), or name one: ETCD=/path/to/etcd.",
)


class Etcd(Server):
    """Listens on loopback."""

    name = "etcd"

    def __init__(self, folder: Path) -> None:
        """Prepare it."""
        super().__init__(folder)
        self._peers = free_port()

    def _command(self) -> Command:
        clients, peers = (f"http://127.0.0.1:{port}" for port in (self.port, self._peers))
        argv = [
            str(find_or_fetch()),
            f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        ]
        return Command(argv)

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as answer:
                return b'"true"' in answer.read()
        except (URLError, OSError):
            return False


def find_or_fetch() -> Path:
    """Return ETCD, the machine's, or Debian's unpacked."""
    if named := os.environ.get("ETCD") or shutil.which("etcd"):
        return Path(named)
    return debian.fetch(debian.CACHE, BUNDLE) / "usr/bin/etcd"
