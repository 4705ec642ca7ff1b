"""A hot standby of a private Postgres: receives what the primary commits, can take its place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg

from servers.errors import StartFailed
from servers.folders import completed
from servers.postgres import Postgres
from servers.processes import spawn, tail

_COPY_SECONDS: Final = 60
#: The server's own words, in the eighth line of its pid file.
_UP: Final = ("standby", "ready")


class Standby(Postgres):
    """Made from a running primary, which knows it as `standby`."""

    def __init__(
        self, folder: Path, primary: Postgres, settings: Mapping[str, str] | None = None
    ) -> None:
        """Prepare a standby; the first start copies the primary."""
        super().__init__(folder, settings, primary.binaries)
        self.password = primary.password  # its logins are the primary's
        self.source_port = primary.port  # another one, for a network that may fail in between

    def promote(self) -> None:
        """Make it a primary of its own; returns when it takes writes."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote(wait => true)")

    def _initialise(self, data: Path) -> None:
        with completed(data) as unfinished:
            argv = [str(self.binaries / "pg_basebackup"), f"--pgdata={unfinished}", "--no-sync"]
            source = f"host=127.0.0.1 port={self.source_port} user=postgres"
            source += f" password={self.password} application_name=standby"
            argv += [f"--dbname={source}", "--checkpoint=fast", "--write-recovery-conf"]
            process = spawn(argv, folder=self.folder, log=self.log, identity=self.identity)
            if process.wait(_COPY_SECONDS) != 0:
                ended = f"pg_basebackup ended with {process.returncode}"
                raise StartFailed(f"{ended}:\n{tail(self.log)}")

    def _is_ready(self) -> bool:
        return self._state() in _UP
