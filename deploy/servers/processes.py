"""A started process never outlives its parent, however that one ends.

The kernel signals it when the thread that started it dies, SIGKILL included, so start servers from
a thread that lives as long as they shall. What is frozen is thawed by the same rule.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep

from servers.errors import ServerMissing, StartFailed
from servers.identity import MYSELF, Identity

# Run under setpriv: a parent that died before the kernel was asked would go unnoticed.
_EXEC_UNLESS_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'
# Holds the given processes stopped for as long as its standard input stays open.
_HOLD_STOPPED = 'kill -STOP "$@"; echo stopped; read -r _; kill -CONT "$@" 2>/dev/null || :'
_POLL_SECONDS = 0.01
_TAIL_CHARACTERS = 3000


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
    """SIGKILL a process and its descendants at one moment; return when all are gone."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGSTOP)  # it starts no more children while they are counted
    victims = family(process.pid)
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    while any(is_alive(pid) for pid in victims):  # SIGKILL cannot be refused, only be late
        sleep(_POLL_SECONDS)


def freeze(pids: Iterable[int]) -> subprocess.Popen[bytes]:
    """Stop processes until ``thaw`` or the end of this process."""
    holder = subprocess.Popen(
        ["sh", "-c", _HOLD_STOPPED, "sh", *map(str, pids)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    if holder.stdout is not None:
        holder.stdout.readline()
    return holder


def thaw(holder: subprocess.Popen[bytes]) -> None:
    """Let frozen processes go on; return when they do."""
    holder.communicate()


def family(pid: int) -> list[int]:
    """A process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for child in _all_pids():
        if (stat := _stat(child)) is not None:
            children.setdefault(int(stat[1]), []).append(child)
    found = [pid]
    for member in found:
        found.extend(children.get(member, []))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process still runs (a zombie does not)."""
    stat = _stat(pid)
    return stat is not None and stat[0] not in "ZX"


def tail(log: Path) -> str:
    """Return the end of a log, for an error message."""
    try:
        return log.read_text(errors="replace")[-_TAIL_CHARACTERS:]
    except OSError as error:
        return f"(no log: {error})"


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
