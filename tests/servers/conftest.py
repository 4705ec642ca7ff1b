"""Runs a server under a parent that is then killed, and looks for what it leaves behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from servers.processes import is_alive
from tests.fixtures.waiting import wait_until

# Starts the server named by the first argument, reports its processes, and waits to be killed.
_PARENT = """
import sys
from pathlib import Path
import servers
server = getattr(servers, sys.argv[1])(Path(sys.argv[2])).start()
if sys.argv[3] == "frozen":
    server.freeze()
print(*server.pids(), flush=True)
sys.stdin.read()
"""
_GONE_SECONDS = 20

LeftBehind = Callable[[str, Path, str], None]


@pytest.fixture
def assert_gone_with_parent() -> LeftBehind:
    """Kill the parent of a server, which may be frozen, and wait until no process is left."""

    def assert_gone(server: str, folder: Path, state: str) -> None:
        tools = Path(__file__).resolve().parents[2] / "tools"
        parent = subprocess.Popen(
            [sys.executable, "-c", _PARENT, server, str(folder), state],
            env={**os.environ, "PYTHONPATH": str(tools)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with parent:
            assert parent.stdout is not None
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert pids, "the server did not start"
            assert all(map(is_alive, pids))
            parent.send_signal(signal.SIGKILL)
        wait_until(lambda: mentioning(folder) == [], _GONE_SECONDS, f"no process in {folder}")
        wait_until(lambda: not any(map(is_alive, pids)), _GONE_SECONDS, f"end of {pids}")

    return assert_gone


def mentioning(folder: Path) -> list[str]:
    """Return the live processes that work in a folder or were told its name."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            works_in = (process / "cwd").readlink()
            name = (process / "comm").read_text().strip()
        except OSError:  # ended meanwhile, or another user's
            continue
        inside = str(folder).encode() in told or works_in.is_relative_to(folder)
        if inside and is_alive(int(process.name)):
            found.append(f"{process.name} {name}")
    return found
