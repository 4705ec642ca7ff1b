"""A file system of a few megabytes that holds one database.

The server's log of changes lies elsewhere: the disk can fill up without taking the server down.
"""

import subprocess
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql

from servers import Postgres

_SIZE = 28 << 20
_RESERVE = 10 << 20


class SmallDisk:
    """A tablespace on a tmpfs, part of which is taken until `make_room`."""

    def __init__(self, folder: Path, server: Postgres) -> None:
        """Mount it; raises PermissionError where that is not allowed."""
        self._folder, self._server = folder, server
        command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0777", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            folder.rmdir()
            raise PermissionError("mount")
        folder.parent.chmod(folder.parent.stat().st_mode | 0o011)
        self._reserve = folder / "reserve"
        self._reserve.write_bytes(bytes(_RESERVE))
        self._name = f"small{uuid4().hex}"

    def create_database(self, template: str) -> str:
        """A database that has no room but this; its URL."""
        place = self._folder / "tablespace"
        place.mkdir()
        self._server.identity.give(place)
        name = sql.Identifier(self._name)
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(name, sql.Literal(str(place)))
            )
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} TABLESPACE {}").format(
                    name, sql.Identifier(template), name
                )
            )
        return self._server.dsn(self._name)

    def make_room(self) -> None:
        """Give back what was taken from the beginning."""
        self._reserve.unlink()

    def discard(self) -> None:
        """Drop the database and unmount."""
        self._server.drop_database(self._name)
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP TABLESPACE IF EXISTS {}").format(sql.Identifier(self._name))
            )
        subprocess.run(["umount", str(self._folder)], check=True)
        self._folder.rmdir()
