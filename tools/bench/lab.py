"""The private servers all measurements share, and one admin connection to their database.

Nothing outlives the bench, and no server of the machine is touched.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg

from bench.scale import Scale
from outbox_migrations import upgrade
from servers import Postgres, RabbitMQ, ServerMissing, Valkey

Connection = psycopg.Connection[tuple[Any, ...]]
Broker = TypeVar("Broker", RabbitMQ, Valkey)

#: The memory of the machine, in megabytes.
MEMORY_MB: Final = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
#: No checkpoint begins by itself in the middle of a measurement; `reset` makes them. Buffers are
#: what Postgres' own pages advise: a quarter of the memory.
POSTGRES_SETTINGS: Final = {
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": f"{MEMORY_MB // 4}MB",
}


class Unbelievable(RuntimeError):
    """A measurement that must not be reported, such as one that lost messages; never transient."""


@dataclass(frozen=True, slots=True)
class Lab:
    """The servers, none of which the measurements start or stop."""

    scale: Scale
    folder: Path
    postgres: Postgres
    rabbitmq: RabbitMQ | None
    valkey: Valkey | None
    database_url: str
    admin: Connection

    def value(self, query: str, *parameters: object) -> Any:
        """Return the one value a query gives, on the admin connection."""
        return self.admin.execute(query.encode(), parameters).fetchall()[0][0]

    def require_rabbitmq(self) -> RabbitMQ:
        """Return the RabbitMQ node of an experiment that is only made where there is one."""
        if self.rabbitmq is None:
            raise Unbelievable("there is no RabbitMQ to measure against")
        return self.rabbitmq

    def require_valkey(self) -> Valkey:
        """Return the Valkey of an experiment that is only made where there is one."""
        if self.valkey is None:
            raise Unbelievable("there is no Valkey to measure against")
        return self.valkey


@contextmanager
def opened(scale: Scale, parent: Path) -> Iterator[Lab]:
    """Start the servers in a new folder within `parent`; stop and discard them at the end."""
    with ExitStack() as stack:
        parent.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = Postgres(folder / "postgres", POSTGRES_SETTINGS)
        stack.callback(postgres.discard)
        postgres.start()
        database_url = postgres.create_database("bench")
        upgrade(database_url)
        rabbitmq = _started(RabbitMQ, folder / "rabbitmq", stack)
        valkey = _started(Valkey, folder / "valkey", stack)
        admin: Connection = stack.enter_context(psycopg.connect(database_url, autocommit=True))
        yield Lab(scale, folder, postgres, rabbitmq, valkey, database_url, admin)


def _started(kind: type[Broker], folder: Path, stack: ExitStack) -> Broker | None:
    """Start a broker, or say that what needs it is left out."""
    try:
        server = kind(folder)
    except ServerMissing as missing:
        print(f"left out, for want of {kind.name}: {missing}", file=sys.stderr)
        return None
    stack.callback(server.discard)
    server.start()
    return server
