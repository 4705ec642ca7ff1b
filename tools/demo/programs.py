"""The relay, the worker and the console as processes of their own, as in production."""

import os
import sys
from pathlib import Path
from signal import SIGTERM
from subprocess import Popen
from urllib.error import URLError
from urllib.request import urlopen

from demo.services import Services
from servers.ports import free_port
from servers.processes import end, kill_family, spawn, tail


class ProgramEnded(RuntimeError):
    """A program ended by itself; the message holds the end of its log."""


class Program:
    """One process with its log."""

    def __init__(
        self, name: str, argv: list[str], folder: Path, environment: dict[str, str]
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._process: Popen[bytes] = spawn(
            argv, folder=folder, log=self.log, environment=environment
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Raise when it has ended, which nobody asked for."""
        if self.has_ended():
            raise ProgramEnded(
                f"the {self.name} ended with {self._process.returncode}:\n{tail(self.log)}"
            )

    def kill(self) -> None:
        """SIGKILL it and its children."""
        kill_family(self._process)

    def stop(self) -> None:
        """Ask it to end in order, and wait."""
        end(self._process, SIGTERM, seconds=15)


class Relay(Program):
    """`outbox-relay run`, with its metrics."""

    def __init__(self, services: Services, folder: Path) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        super().__init__(
            "relay",
            [str(Path(sys.executable).with_name("outbox-relay")), "run"],
            folder,
            _environment(
                OUTBOX_DATABASE_URL=services.database_url,
                OUTBOX_BROKER_URL=services.broker.url,
                OUTBOX_HTTP_ADDRESS=self._address,
            ),
        )

    def is_ready(self) -> bool:
        """Whether it reaches its database and its broker."""
        try:
            with urlopen(f"http://{self._address}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


class Worker(Program):
    """`celery -A shop worker`."""

    def __init__(self, services: Services, folder: Path) -> None:
        argv = [sys.executable, "-m", "celery", "-A", "shop", "worker", "--concurrency=4"]
        argv += ["--loglevel=INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        super().__init__(
            "worker",
            argv,
            folder,
            _environment(
                OUTBOX_DATABASE_URL=services.database_url,
                SHOP_BROKER_URL=services.broker.url,
                SHOP_RESULTS_URL=services.results_url,
            ),
        )

    def is_ready(self) -> bool:
        """Whether it consumes."""
        return " ready." in self.log.read_text(errors="replace")


class Console(Program):
    """`outbox-console`, on a port of its own; the demo goes on without it."""

    def __init__(self, services: Services, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        super().__init__(
            "console",
            [str(Path(sys.executable).with_name("outbox-console"))],
            folder,
            _environment(
                OUTBOX_DATABASE_URL=services.database_url,
                OUTBOX_BROKER_URL=services.broker.url,  # for the page Doctor
                OUTBOX_CONSOLE_ADDRESS=self.address,
                OUTBOX_CONSOLE_ROLE="operator-with-payload",
            ),
        )


def _environment(**own: str) -> dict[str, str]:
    """The machine's environment without settings meant for another outbox."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OUTBOX_", "SHOP_"))}
    return {**inherited, "PYTHONUNBUFFERED": "1", **own}
