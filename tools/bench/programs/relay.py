"""Starts the relay and the stub broker as processes of their own; none outlives the bench."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from servers.processes import kill_family, spawn, tail

_TOOLS: Final = Path(__file__).resolve().parents[2]


class Relay:
    """An `outbox-relay run` process."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.log = folder / f"relay-{uuid4().hex[:8]}.log"
        self.process = spawn(
            [str(Path(sys.executable).with_name("outbox-relay")), "run"],
            folder=folder,
            log=self.log,
            environment=_environment(environment),
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def words(self) -> str:
        """The end of its log."""
        return tail(self.log)

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        kill_family(self.process)


@contextmanager
def stub_brokers(count: int) -> Iterator[list[tuple[str, int]]]:
    """Run brokers that confirm at once, one for each relay: their URLs and process ids."""
    argv = [sys.executable, "-m", "bench.programs.stub_broker"]
    environment = {**os.environ, "PYTHONPATH": str(_TOOLS)}
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            process = stack.enter_context(
                subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment,
                    text=True,
                    start_new_session=True,  # Ctrl-C reaches the bench, which then closes its input
                )
            )
            assert process.stdout is not None  # it was asked for
            found.append((process.stdout.readline().strip(), process.pid))
        yield found


def _environment(own: dict[str, str]) -> dict[str, str]:
    """The machine's environment, without settings meant for another outbox."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("OUTBOX_")}
    return {**inherited, "OUTBOX_HTTP_ADDRESS": "off", **own}
