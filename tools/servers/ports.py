"""Ports that stay a server's own while it is down.

They lie below the range Linux hands to outgoing connections: a client that retries against a
killed server could otherwise be given that very port, connect to itself and hold it.
"""

import random
import socket

_PORTS = range(15000, 32000)
_ATTEMPTS = 100


def free_port() -> int:
    """Return a loopback port nothing listens on."""
    # From the system's randomness: processes seeded alike would choose alike, at once.
    for candidate in random.SystemRandom().sample(_PORTS, _ATTEMPTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    raise OSError(f"{_ATTEMPTS} ports of {_PORTS} tried, none free on 127.0.0.1")


def is_taken(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
