"""The relay as it is started in production, with none of the settings of another outbox."""

import os
import sys
from pathlib import Path
from uuid import uuid4

from servers.processes import kill_family, spawn, tail


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


def _environment(own: dict[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("OUTBOX_")}
    return {**inherited, "OUTBOX_HTTP_ADDRESS": "off", **own}
