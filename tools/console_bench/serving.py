"""A console, a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.ports import free_port


@contextmanager
def served(url: str) -> Iterator[str]:
    """The address of a console, a process of its own."""
    address = f"127.0.0.1:{free_port()}"
    command = [str(Path(sys.executable).with_name("outbox-console")), "--address", address]
    command += ["--database-url", url, "--role", "operator-with-payload"]
    console = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"http://{address}"
    finally:
        console.terminate()
        console.wait(20)
