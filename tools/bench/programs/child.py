"""A module of the bench as a process of its own, which ends when its standard input closes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

#: Where the bench is imported from.
TOOLS: Final = str(Path(__file__).resolve().parents[2])


def started(module: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Run `python -m` that."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": TOOLS, **environment},
        text=True,
        start_new_session=True,  # Ctrl-C reaches the bench, which then closes its input
    )


def first_line(process: "subprocess.Popen[str]") -> str:
    """What it prints once it is ready; nothing where it has ended instead."""
    assert process.stdout is not None  # it was asked for
    return process.stdout.readline().strip()
