"""CPU time by process, from /proc: what each side of a measurement costs, and who else was busy.

A process is counted with everything it started, also what has ended since, so that Postgres is all
its backends and nothing is lost between two looks.
"""

import os
from pathlib import Path
from typing import Final

from servers.processes import family

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
#: Fields of /proc/PID/stat after the name: utime, stime, and those of children that ended.
_TIMES: Final = slice(11, 15)
#: Fields of the first line of /proc/stat that are not idleness: user nice system - - irq softirq.
_BUSY: Final = (1, 2, 3, 6, 7)


def spent(*pids: int) -> float:
    """Seconds of CPU that processes and their descendants have used, to a hundredth or so."""
    return sum(_own(member) for pid in pids for member in family(pid))


def foreign() -> float:
    """CPU seconds used on this machine by everybody but this process and what it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[n]) for n in _BUSY) * _TICK - spent(os.getpid())


def _own(pid: int) -> float:
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # ended meanwhile: its parent's by now
        return 0.0
    return sum(map(int, line.rpartition(")")[2].split()[_TIMES])) * _TICK
