"""A private pgbouncer before one database, in session or transaction mode."""

import os
import shutil
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from servers import debian
from servers.ports import is_taken
from servers.server import Command, Server

#: The pooler and the two libraries it is linked with, half a megabyte.
BUNDLE: Final = debian.Bundle(
    title="pgbouncer",
    package="pgbouncer",
    prefixes=("pgbouncer", "libevent-2", "libc-ares"),
    way_out="Install it (apt-get install pgbouncer), or name one: PGBOUNCER=/path/to/pgbouncer.",
)
_INSIDE: Final = "usr/sbin/pgbouncer"

_SETTINGS: Final = """
[databases]
shop = host={host} port={port} dbname={database} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""


class PgBouncer(Server):
    """Takes any login to its one database, `shop`."""

    name = "pgbouncer"

    def __init__(self, folder: Path, database: str, mode: str) -> None:
        """Stand before a database's URL."""
        super().__init__(folder)
        self._executable = find_or_fetch()
        self._database, self._mode = urlsplit(database), mode

    @property
    def url(self) -> str:
        """The database's URL through the pooler."""
        return f"postgresql://anybody@127.0.0.1:{self.port}/shop"

    def _command(self) -> Command:
        settings = self.folder / "pgbouncer.ini"
        real = self._database
        settings.write_text(
            _SETTINGS.format(
                host=real.hostname,
                port=real.port,
                database=real.path[1:],
                user=real.username,
                password=real.password,
                listen=self.port,
                mode=self._mode,
            )
        )
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to be root
        argv = [str(self._executable), *as_nobody, str(settings)]
        return Command(argv, debian.environment(self._executable))

    def _is_ready(self) -> bool:
        return is_taken(self.port)


def find_or_fetch() -> Path:
    """Return PGBOUNCER, the machine's, the unpacked one, or unpack it now."""
    named = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer")
    if named:
        return Path(named)
    unpacked = debian.CACHE / BUNDLE.folder / _INSIDE
    return unpacked if unpacked.exists() else debian.fetch(debian.CACHE, BUNDLE) / _INSIDE
