"""A console, a process of its own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Final

import httpx

from servers.ports import free_port
from servers.processes import end, spawn, wait_ready

#: Seconds for its start, and for its end.
_PATIENCE: Final = 30


@dataclass(frozen=True, slots=True)
class Served:
    """Where it listens, and its process."""

    address: str
    pid: int


@contextmanager
def served(url: str, folder: Path) -> Iterator[Served]:
    """A console of that database, which has answered; its log is in the folder."""
    port, log = free_port(), folder / "console.log"
    command = [str(Path(sys.executable).with_name("outbox-console"))]
    command += ["--address", f"127.0.0.1:{port}"]
    command += ["--database-url", url, "--role", "operator-with-payload"]
    process = spawn(command, folder=folder, log=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_ready(
            process, lambda: _answers(address), seconds=_PATIENCE, log=log, what="the console"
        )
        yield Served(address, process.pid)
    finally:
        end(process, SIGTERM, _PATIENCE)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=_PATIENCE).is_success
    except httpx.TransportError:
        return False
