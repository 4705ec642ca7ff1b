"""A private HAProxy that leads to whichever node of a Patroni cluster says it is the primary."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from servers import debian
from servers.ports import is_taken
from servers.server import Command, Server

BUNDLE: Final = debian.Bundle(
    title="haproxy",
    package="haproxy",
    prefixes=("haproxy", "liblua5.3", "libopentracing", "libpcre2"),
    way_out="Install it (apt-get install haproxy), or name one: HAPROXY=/path/to/haproxy.",
)
#: As Patroni's manual has it; sessions with a node that is not the primary any more are ended.
_SETTINGS: Final = """
global
    maxconn 200
defaults
    mode tcp
    timeout connect 2s
    timeout client 10m
    timeout server 10m
    timeout check 2s
listen primary
    bind 127.0.0.1:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
"""


class HAProxy(Server):
    """Listens on loopback for clients of the primary."""

    name = "haproxy"

    def __init__(self, folder: Path, nodes: Sequence[tuple[int, int]]) -> None:
        """Stand before nodes, each with the ports of its Postgres and of its Patroni."""
        super().__init__(folder)
        self._nodes = nodes

    def _command(self) -> Command:
        executable = find_or_fetch()
        settings = self.folder / "haproxy.cfg"
        servers = [
            f"    server node{number} 127.0.0.1:{postgres} check port {patroni}\n"
            for number, (postgres, patroni) in enumerate(self._nodes, 1)
        ]
        settings.write_text(_SETTINGS.format(port=self.port) + "".join(servers))
        argv = [str(executable), "-db", "-f", str(settings)]
        return Command(argv, debian.environment(executable))

    def _is_ready(self) -> bool:
        return is_taken(self.port)


def find_or_fetch() -> Path:
    """Return HAPROXY, the machine's, or Debian's unpacked."""
    if named := os.environ.get("HAPROXY") or shutil.which("haproxy"):
        return Path(named)
    return debian.fetch(debian.CACHE, BUNDLE) / "usr/sbin/haproxy"
