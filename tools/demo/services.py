"""The servers the demo runs on: those it was given, else private ones that end with it.

A server that is merely found on this machine is somebody's data: it is mentioned, never touched.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.settings import Kind, Settings
from servers import Postgres, RabbitMQ, ServerMissing, Valkey

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Broker:
    """Where messages go. `server` is None for a given one, which is not ours to kill."""

    name: str
    kind: Kind
    url: str
    server: RabbitMQ | Valkey | None


@dataclass(frozen=True, slots=True)
class Services:
    """Everything the shop connects to."""

    database_url: str
    broker: Broker
    results_url: str


@contextmanager
def started(settings: Settings, folder: Path, say: Say) -> Iterator[Services]:
    """Start what was not given, and stop exactly that at the end."""
    with ExitStack() as stack:
        database = settings.database_url or _private_postgres(folder, stack, say)
        if settings.database_url:
            say("Postgres: yours, as DATABASE_URL says")
        broker = _broker(settings, folder, stack, say)
        # Chords count their parts in the result backend; it is not what the demo breaks.
        results = Valkey(folder / "results")
        stack.callback(results.discard)
        yield Services(database, broker, results.start().url)


def _private_postgres(folder: Path, stack: ExitStack, say: Say) -> str:
    server = Postgres(folder / "postgres")
    stack.callback(server.discard)
    server.start()
    say(f"Postgres: private, port {server.port}{_bystander(5432, 'DATABASE_URL')}")
    return server.create_database("shop")


def _broker(settings: Settings, folder: Path, stack: ExitStack, say: Say) -> Broker:
    if settings.broker_url is not None:
        kind = settings.broker or "rabbitmq"
        name = "Redis" if kind == "redis" else "RabbitMQ"
        say(f"{name}: yours, as BROKER_URL says; it will not be killed")
        return Broker(name, kind, settings.broker_url, None)
    if settings.broker == "redis":
        return _private_valkey(folder, stack, say)
    try:
        return _private_rabbitmq(folder, stack, say)
    except ServerMissing as missing:
        if settings.broker == "rabbitmq":
            raise
        say(f"RabbitMQ: not to be had here ({str(missing).splitlines()[0]})")
        return _private_valkey(folder, stack, say)


def _private_rabbitmq(folder: Path, stack: ExitStack, say: Say) -> Broker:
    say("RabbitMQ: starting (the first time it is fetched, 40 MB, without touching the system)")
    server = RabbitMQ(folder / "rabbitmq")
    stack.callback(server.discard)
    server.start()
    say(f"RabbitMQ: private, port {server.port}{_bystander(5672, 'BROKER_URL')}")
    return Broker("RabbitMQ", "rabbitmq", server.url(), server)


def _private_valkey(folder: Path, stack: ExitStack, say: Say) -> Broker:
    # With everysec, writes already answered wait in its memory while the disk is busy.
    server = Valkey(folder / "broker", {"appendfsync": "always"})
    stack.callback(server.discard)
    server.start()
    say(f"Valkey: private, port {server.port}{_bystander(6379, 'BROKER_URL')}")
    return Broker("Valkey", "redis", server.url, server)


def _bystander(port: int, variable: str) -> str:
    """Mention a server on the usual port, which is left alone."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return ""
    return f" (what listens on {port} is left alone; {variable}=... would use it)"
