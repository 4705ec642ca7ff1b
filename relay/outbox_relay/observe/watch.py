"""What looks every so often beside the loop, each on a thread of its own: it holds up nothing."""

import threading
from abc import ABC, abstractmethod
from pathlib import Path
from traceback import extract_tb
from typing import Final, Self

import structlog

from outbox_relay.core.thread import ContextThread

log = structlog.get_logger()

#: How long after a fault of ours a watch begins anew, in seconds.
AGAIN_AFTER: Final = 60.0


class Watch(ABC):
    """A context manager that starts the thread, and tells it to stop, but does not wait for it.

    A daemon: the end of the process waits for no server that hangs. Whatever ends a look, others
    follow.
    """

    def __init__(self, name: str) -> None:
        self._stopped = threading.Event()
        self._thread = ContextThread(target=self._run_on, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def _run_on(self) -> None:
        while not self._stopped.is_set():
            try:
                self._run()
            except Exception as error:  # which no look should raise, and none should be the last
                frame = extract_tb(error.__traceback__)[-1]
                where = f"{Path(frame.filename).name}:{frame.lineno}"
                reason = f"{type(error).__name__} at {where}"
                log.error("watch_failed", watch=self._thread.name, reason=reason)
                self._stopped.wait(AGAIN_AFTER)

    @abstractmethod
    def _run(self) -> None:
        """Look again and again, until `_stopped` is set."""
