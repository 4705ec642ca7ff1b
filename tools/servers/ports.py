"""Ports that stay a server's own while it is down, and until it starts.

They lie below the range Linux hands to outgoing connections: a client that retries against a
killed server could otherwise be given that very port, connect to itself and hold it. And no two
processes of one user are given the same: each has a lock on those it was given last.
"""

import fcntl
import os
import random
import socket
import tempfile
from collections import deque
from functools import cache
from pathlib import Path
from typing import IO, Final

_PORTS = range(15000, 32000)
_ATTEMPTS = 100
#: So many that were given last stay a process's own; a run of all tests has eight of them.
_KEPT: Final = 500
_given: deque[int] = deque()


def free_port() -> int:
    """Return a loopback port nothing listens on, and no other process was given of late."""
    # From the system's randomness: processes seeded alike would choose alike, at once.
    for candidate in random.SystemRandom().sample(_PORTS, _ATTEMPTS):
        if candidate in _given or not _lock(candidate):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                _unlock(candidate)
                continue
        _given.append(candidate)
        if len(_given) > _KEPT:
            _unlock(_given.popleft())
        return candidate
    raise OSError(f"{_ATTEMPTS} ports of {_PORTS} tried, none free on 127.0.0.1")


def is_taken(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@cache
def _locks() -> IO[bytes]:
    """A file of which each byte stands for a port; a process's locks on it end with the process."""
    path = Path(tempfile.gettempdir(), f"celery-outbox-ports-{os.getuid()}")
    return path.open("ab", buffering=0)


def _lock(port: int) -> bool:
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # as systems differ
        return False
    return True


def _unlock(port: int) -> None:
    fcntl.lockf(_locks(), fcntl.LOCK_UN, 1, port)
