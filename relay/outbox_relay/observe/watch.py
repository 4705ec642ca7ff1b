"""What looks every so often beside the loop, each on a thread of its own: it holds up nothing."""

import threading
from abc import ABC, abstractmethod
from typing import Self

from outbox_relay.core.thread import ContextThread


class Watch(ABC):
    """A context manager that starts the thread, and tells it to stop, but does not wait for it.

    A daemon: the end of the process waits for no server that hangs.
    """

    def __init__(self, name: str) -> None:
        self._stopped = threading.Event()
        self._thread = ContextThread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    @abstractmethod
    def _run(self) -> None:
        """Look again and again, until `_stopped` is set."""
