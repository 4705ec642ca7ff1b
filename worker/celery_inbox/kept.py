"""Keeps connections open between tasks: one for each that a worker process runs at a time.

Prefork children keep one each, threads and greenlets share what is free. A connection that the
server or the network has ended meanwhile is noticed as it is taken and replaced, and so are those
that were opened before a fork: the parent has them.
"""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from celery_inbox.errors import UnusableConnection

Connection = psycopg.Connection[Any]


class KeptConnections:
    """Connections to one database, taken and given back last in, first out."""

    def __init__(self, url: str) -> None:
        """Raises UnusableConnection for what is no URL; it is not repeated: it has a password."""
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise UnusableConnection(
                "@idempotent was given a database URL that libpq cannot read: write it as in "
                "postgresql://user@host/database (without a driver such as +psycopg), and see "
                "libpq's connection parameters for its options"
            ) from None
        self._url = url
        self._free: list[Connection] = []
        self._process = os.getpid()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in no transaction; kept afterwards if it is still fit for the next."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _take(self) -> Connection:
        if self._process != os.getpid():
            # Forked: to close the parent's would end its sessions; psycopg leaves them alone.
            self._free, self._process = [], os.getpid()
        while self._free:
            try:
                connection = self._free.pop()
            except IndexError:  # another thread was quicker
                break
            if _is_alive(connection):
                return connection
            connection.close()
        return psycopg.connect(self._url, autocommit=False)

    def _give_back(self, connection: Connection) -> None:
        if connection.info.transaction_status is TransactionStatus.IDLE:
            self._free.append(connection)
        else:  # lost, or left in the middle of something
            connection.close()


def _is_alive(connection: Connection) -> bool:
    """Whether nothing has come from the server unasked: its farewell, or the connection's end."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLERR | select.POLLHUP)
    return not poll.poll(0)
