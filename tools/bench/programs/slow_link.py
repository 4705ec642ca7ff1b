"""A database half a millisecond away: a proxy, in a process of its own, delays each round trip.

What a client sends is held back for so long and passed on as it came; answers are passed on at
once. So every round trip takes DELAY longer, whatever is in it.
"""

import selectors
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from time import sleep
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bench.lab import Unbelievable
from bench.programs.child import first_line, started

#: Seconds.
DELAY: Final = 0.0005
CHUNK: Final = 262_144


@contextmanager
def slowed(url: str) -> Iterator[str]:
    """Start the proxy before a database; the URL that leads through it."""
    parts = conninfo_to_dict(url)
    host, port = str(parts.get("host") or "127.0.0.1"), str(parts.get("port") or 5432)
    with started(__name__, host, port) as proxy:
        try:
            if not (listening := first_line(proxy)):
                raise Unbelievable("the proxy before the database did not start")
            yield make_conninfo(url, host="127.0.0.1", port=listening)
        finally:
            proxy.terminate()


def main(host: str, port: str) -> None:
    """Listen on a port of our own, print it, and serve until killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            Thread(target=_serve, args=(client, _connected(host, int(port))), daemon=True).start()


def _connected(host: str, port: int) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    server = socket.socket(socket.AF_UNIX)
    server.connect(f"{host}/.s.PGSQL.{port}")
    return server


def _serve(client: socket.socket, server: socket.socket) -> None:
    with client, server, selectors.DefaultSelector() as selector:
        for end in (client, server):
            if end.family != socket.AF_UNIX:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)
        while True:
            for key, _ in selector.select():
                source: socket.socket = key.fileobj  # type: ignore[assignment]  # as registered
                if not (data := source.recv(CHUNK)):
                    return
                if source is client:
                    sleep(DELAY)
                key.data.sendall(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
