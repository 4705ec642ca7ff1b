"""Relays and workers of the play, each on an address or a node name that outlives its process."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from demo.programs import Program
from servers.ports import free_port


class Relay(Program):
    """`outbox-relay run` with its metrics; started again, it has the same address."""

    def __init__(self, name: str, folder: Path, address: str, settings: Mapping[str, str]) -> None:
        super().__init__(
            name,
            [str(Path(sys.executable).with_name("outbox-relay")), "run"],
            folder,
            environment({**settings, "OUTBOX_HTTP_ADDRESS": address}),
        )


class Worker(Program):
    """`celery -A shop worker` of some queues."""

    def __init__(
        self, name: str, folder: Path, queues: str, concurrency: int, settings: Mapping[str, str]
    ) -> None:
        argv = [sys.executable, "-m", "celery", "-A", "shop", "worker"]
        argv += [f"--hostname={name}@shop", f"--queues={queues}", f"--concurrency={concurrency}"]
        argv += ["--loglevel=WARNING", "--without-gossip", "--without-mingle"]
        super().__init__(name, argv, folder, environment(settings))


def address() -> str:
    """A place for a relay's metrics."""
    return f"127.0.0.1:{free_port()}"


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The machine's environment without settings meant for another outbox."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OUTBOX_", "SHOP_"))}
    return {**inherited, "PYTHONUNBUFFERED": "1", **own}
