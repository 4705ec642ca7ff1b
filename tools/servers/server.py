"""What all private servers share: one process, one folder, one port that survives a crash."""

import secrets
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from servers.identity import MYSELF, Identity
from servers.ports import free_port
from servers.processes import end, family, freeze, kill_family, spawn, thaw, wait_ready


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server's process."""

    argv: Sequence[str]
    environment: Mapping[str, str] | None = None
    identity: Identity = MYSELF


class Server(ABC):
    """A server that can be stopped, killed, frozen and started again on the same port and data."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    start_seconds: ClassVar[float] = 30
    stop_seconds: ClassVar[float] = 20

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.port = free_port()
        self.log = self.folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._holder: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> Command:
        """Write what the process needs into the folder and say how to start it."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether clients can use the server now."""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's main process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether its main process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start and return when clients can connect."""
        command = self._command()
        self._process = spawn(
            command.argv,
            folder=self.folder,
            log=self.log,
            environment=command.environment,
            death_signal=self.death_signal,
            identity=command.identity,
        )
        try:
            wait_ready(
                self._process,
                self._is_ready,
                seconds=self.start_seconds,
                log=self.log,
                what=self.name,
            )
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Shut down in order; kill when that takes too long. Stopping twice is harmless."""
        self.thaw()
        if self._process is not None:
            end(self._process, self.stop_signal, self.stop_seconds)

    def kill(self) -> None:
        """Crash the server: SIGKILL for it and all its processes at one moment."""
        if self._process is not None:
            kill_family(self._process)
        self.thaw()

    def restart(self) -> Self:
        """Stop, and start on the same port with the same data."""
        self.stop()
        return self.start()

    def pids(self) -> list[int]:
        """Return the server's processes, the main one first."""
        return family(self.process.pid)

    def freeze(self, *pids: int) -> None:
        """Stop the given processes, or all of the server's, without closing any connection."""
        self.thaw()
        self._holder = freeze(pids or self.pids())

    def thaw(self) -> None:
        """Let what was frozen go on."""
        if self._holder is not None:
            thaw(self._holder)
            self._holder = None

    @contextmanager
    def frozen(self, *pids: int) -> Iterator[None]:
        """Freeze for the length of a block."""
        self.freeze(*pids)
        try:
            yield
        finally:
            self.thaw()

    def discard(self) -> None:
        """End it and delete the data: what is thrown away needs no orderly shutdown."""
        self.kill()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def kept_secret(file: Path) -> str:
    """Return the secret a file keeps, made on first use: other users of the machine stay out."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(16))
    return file.read_text()
