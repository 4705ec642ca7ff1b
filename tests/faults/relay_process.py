"""Relay processes that end or pause at a point of `crash`, or starve; as ever otherwise."""

import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.fixtures.programs import CHECKOUT, Relay
from tests.fixtures.waiting import wait_until

_DEATH_SECONDS = 30.0


def crashing_relay(point: str, folder: Path, environment: Mapping[str, str]) -> Relay:
    """Start it; `point` as in `claimed:2:SIGKILL`, for the second time that it is passed."""
    launcher = (sys.executable, "-m", "tests.faults.crash", point)
    paths = os.pathsep.join((str(CHECKOUT), os.environ.get("PYTHONPATH", "")))
    return Relay(("run",), folder, {**environment, "PYTHONPATH": paths}, launcher)


def starved_relay(memory: int, folder: Path, environment: Mapping[str, str]) -> Relay:
    """Start one that may map no more bytes than that."""
    outbox_relay = str(Path(sys.executable).with_name("outbox-relay"))
    return Relay(("run",), folder, environment, ("prlimit", f"--as={memory}", outbox_relay))


def has_crashed(relay: Relay) -> bool:
    """Wait for its end; whether it was by SIGKILL."""
    return relay.wait(_DEATH_SECONDS) == -signal.SIGKILL


def has_stopped(relay: Relay) -> bool:
    """Wait until SIGSTOP has paused it."""
    wait_until(lambda: _state(relay.process.pid) == "T", _DEATH_SECONDS, "SIGSTOP")
    return True


def peak_memory(relay: Relay) -> int:
    """The most bytes that the process has had in memory at once."""
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    [kilobytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) * 1024


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
