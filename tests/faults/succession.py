"""A primary and its standby, again and again: after each fail-over a new standby is made.

It takes the place, and the port, of the server that died, so that one URL names both for ever.
"""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, Self

import psycopg

from servers import Postgres, Standby
from tests.faults.proxy import Proxy
from tests.faults.queues import through
from tests.fixtures.postgres import migrated_database
from tests.fixtures.waiting import wait_until

SECONDS = 60.0
CAUGHT_UP: LiteralString = (
    "SELECT count(*) FROM pg_stat_replication"
    " WHERE application_name = 'standby' AND replay_lsn = pg_current_wal_lsn()"
)


@dataclass(slots=True)
class Succession:
    """Servers that end with the `stack`; `primary` is the one that takes writes now."""

    stack: ExitStack
    primary: Postgres = field(init=False)
    standby: Standby = field(init=False)
    _replication: Proxy = field(init=False)
    _network: ExitStack = field(init=False)
    _database: str = field(init=False)
    _ports: tuple[int, int] = field(init=False)

    def start(self) -> Self:
        """Start the first two, with the newest schema."""
        self.primary = Postgres(_folder(), {"synchronous_standby_names": ""})
        self.stack.callback(self.primary.discard)
        self._database = migrated_database(self.primary.start())
        self._network = self.stack.enter_context(ExitStack())
        self._attach(None)
        self._ports = self.primary.port, self.standby.port
        return self

    @property
    def anywhere(self) -> str:
        """The database on whichever of the two takes writes."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        login, _, place = self._database.rpartition("@")
        return f"{login}@{hosts}/{place.partition('/')[2]}?target_session_attrs=read-write"

    @property
    def url(self) -> str:
        """The database on the primary of now."""
        return through(self._database, self.primary.port)

    @property
    def next_url(self) -> str:
        """The database on the standby, which is the next primary."""
        return through(self._database, self.standby.port)

    def ask(self, statement: LiteralString, *parameters: Any) -> list[Any]:
        """The first column of what a statement returns on the primary of now."""
        with psycopg.connect(self.url) as connection:
            return [row[0] for row in connection.execute(statement, parameters)]

    def cut(self) -> None:
        """The standby hears no more of the primary."""
        self._replication.refuse()

    def fail_over(self) -> None:
        """The primary dies, the standby is promoted."""
        self.primary.kill()
        self.standby.promote()
        self._network.close()
        self.primary = self.standby

    def replace(self) -> None:
        """Make a standby of the primary of now, where the dead one was."""
        [port] = {*self._ports} - {self.primary.port}
        self._attach(port)

    def wait_caught_up(self) -> None:
        """Wait until the standby has all that there is."""
        wait_until(lambda: self.ask(CAUGHT_UP) == [1], SECONDS, "a standby that has everything")

    def _attach(self, port: int | None) -> None:
        self.standby = Standby(_folder(), self.primary)
        self.stack.callback(self.standby.discard)
        if port is not None:
            self.standby.port = port
        self._replication = self._network.enter_context(Proxy(self.primary.port))
        self.standby.source_port = self._replication.port
        self.standby.start()


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="celery-outbox-succession-"))
