"""Erlang's port mapper, a private one: only nodes that know its port find one another."""

import os
import signal
from pathlib import Path
from typing import Self

from servers.ports import is_taken
from servers.server import Command, Server


class Epmd(Server):
    """Must outlive the nodes that register at it, which do so once."""

    name = "epmd"
    stop_signal = signal.SIGKILL  # it has nothing to lose

    def __init__(self, folder: Path, root: Path) -> None:
        """Prepare the one of an installation."""
        super().__init__(folder)
        self._executable = root / "usr/lib/erlang/bin/epmd"

    def start(self) -> Self:
        """Start unless it runs."""
        return self if self.is_running else super().start()

    def _command(self) -> Command:
        argv = [str(self._executable), "-port", str(self.port), "-address", "127.0.0.1"]
        own = {name: value for name, value in os.environ.items() if not name.startswith("ERL_")}
        return Command(argv, own)

    def _is_ready(self) -> bool:
        return is_taken(self.port)
