"""Runs a command on a terminal of so many columns, or in a pipe, and returns what it shows."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from typing import Final

DEADLINE: Final = 60
#: Where these are set, they decide how wide a terminal is, and not the terminal.
WIDTHS: Final = ("COLUMNS", "LINES")


def on_terminal(argv: Sequence[str], columns: int, environment: Mapping[str, str]) -> str:
    """What a real terminal shows of it, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=_on_top_of_ours(environment)
    )
    os.close(theirs)
    shown = b""
    try:
        while portion := os.read(ours, 65536):
            shown += portion
    except OSError:  # how a terminal says that its last program is gone
        pass
    os.close(ours)
    process.wait(DEADLINE)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode().replace("\r\n", "\n"))


def in_a_pipe(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """What it prints, errors included, where nobody can be asked."""
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_on_top_of_ours(environment),
        text=True,
        timeout=DEADLINE,
        check=False,
    ).stdout


def _on_top_of_ours(environment: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in WIDTHS}
    return {**ours, "TERM": "xterm", **environment}
