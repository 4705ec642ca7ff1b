"""A started process never outlives its parent, however that one ends.

The kernel signals it when the thread that started it dies, SIGKILL included, so start servers from
a thread that lives as long as they shall. What is frozen is thawed by the same rule.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from servers.errors import ServerMissing, StartFailed
from servers.identity import MYSELF, Identity

# Run under setpriv: a parent that died before the kernel was asked would go unnoticed.
_EXEC_UNLESS_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'
# Holds the given processes stopped for as long as its standard input stays open, and at the longest
# for 90 s: a test that its time limit ends may itself hang on what is frozen.
_HOLD_STOPPED = 'kill -STOP "$@"; echo stopped; timeout 90 cat; kill -CONT "$@" 2>/dev/null || :'
_POLL_SECONDS = 0.01
_STOP_SECONDS = 5
_TAIL_CHARACTERS = 3000


@dataclass(frozen=True, slots=True)
class _Stat:
    """What this module reads of /proc/PID/stat."""

    state: str
    parent: int
    session: int


def spawn(
    argv: Sequence[str],
    *,
    folder: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    identity: Identity = MYSELF,
) -> subprocess.Popen[bytes]:
    """Start a command that receives ``death_signal`` when this process is gone.

    It runs in a session of its own: Ctrl-C reaches only its parent, which then stops it in order.
    """
    if shutil.which("setpriv") is None:
        raise ServerMissing("setpriv is missing: apt-get install util-linux")
    name = death_signal.name.removeprefix("SIG")
    guard = ["setpriv", "--pdeathsig", name, "sh", "-c", _EXEC_UNLESS_ORPHANED, str(os.getpid())]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*identity.prefix, *guard, *argv],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=identity.user,
            group=identity.group,
            extra_groups=None if identity.user is None else [],
        )


def wait_ready(
    process: subprocess.Popen[bytes],
    ready: Callable[[], bool],
    *,
    seconds: float,
    log: Path,
    what: str,
) -> None:
    """Return once ``ready`` holds; fail with the log's tail on an early end or at the deadline."""
    deadline = monotonic() + seconds
    while not ready():
        if process.poll() is not None:
            raise StartFailed(f"{what} ended with {process.returncode}:\n{tail(log)}")
        if monotonic() > deadline:
            raise StartFailed(f"{what} is not ready after {seconds:g} s:\n{tail(log)}")
        sleep(_POLL_SECONDS)


def end(process: subprocess.Popen[bytes], polite: signal.Signals, seconds: float) -> None:
    """Ask a process to stop; kill it and its descendants when it has not done so in time."""
    if process.poll() is not None:
        return
    process.send_signal(polite)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill_family(process)


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process and all it started at one moment; return when they are gone."""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)  # it starts no more children while they are counted
    elif is_alive(process.pid):
        return  # somebody else's by now: the number is only given again when no child is left
    victims = family(process.pid)
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    while any(is_alive(pid) for pid in victims):  # SIGKILL cannot be refused, only be late
        sleep(_POLL_SECONDS)


def freeze(pids: Iterable[int]) -> subprocess.Popen[bytes]:
    """Stop processes until ``thaw`` or the end of this process, for 90 s at the longest."""
    stopped = list(pids)
    holder = subprocess.Popen(
        ["sh", "-c", _HOLD_STOPPED, "sh", *map(str, stopped)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    if holder.stdout is not None:
        holder.stdout.readline()
    deadline = monotonic() + _STOP_SECONDS
    while any(map(_runs, stopped)) and monotonic() < deadline:  # SIGSTOP can be late, too
        sleep(_POLL_SECONDS)
    return holder


def _runs(pid: int) -> bool:
    """Whether any thread of a process is neither stopped nor gone."""
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            if thread.read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return True
    return False


def thaw(holder: subprocess.Popen[bytes]) -> None:
    """Let frozen processes go on; return when they do."""
    holder.communicate()


def family(pid: int) -> list[int]:
    """Return a spawned process, its descendants and the orphans of its session, that one first."""
    stats = {each: stat for each in _all_pids() if (stat := _stat(each)) is not None}
    found = [pid, *(each for each, stat in stats.items() if stat.session == pid != each)]
    for member in found:
        found += [e for e, stat in stats.items() if stat.parent == member and e not in found]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process still runs (a zombie does not)."""
    stat = _stat(pid)
    return stat is not None and stat.state not in "ZX"


def tail(log: Path) -> str:
    """Return the end of a log, for an error message."""
    try:
        return log.read_text(errors="replace")[-_TAIL_CHARACTERS:]
    except OSError as error:
        return f"(no log: {error})"


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent, _, session = line.rpartition(")")[2].split()[:4]
    return _Stat(state, int(parent), int(session))
