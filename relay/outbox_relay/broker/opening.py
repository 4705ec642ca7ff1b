"""A connection that is being opened, on a thread of its own, while others work."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from outbox_relay.core.thread import ContextThread

T = TypeVar("T")
Opened = TypeVar("Opened", covariant=True)


class Opening(Protocol[Opened]):
    """What is asked of it; `Background` is one."""

    def result(self) -> Opened | None:
        """The connection, or None as long as there is none. Raises BrokerLost if it failed."""

    def abandon(self) -> None:
        """It is not needed any more: close it as soon as it is open."""


class Background(Generic[T]):
    """Opens on a thread that ends with that; `result` raises whatever `open_one` did."""

    def __init__(self, open_one: Callable[[], T], close: Callable[[T], object]) -> None:
        self._future: Future[T] = Future()
        self._open_one, self._close = open_one, close
        # A daemon: the end of the process does not wait for a broker that hangs.
        ContextThread(target=self._open, name="opening", daemon=True).start()

    def result(self) -> T | None:
        """The connection, or None as long as there is none."""
        return self._future.result() if self._future.done() else None

    def wait(self) -> T:
        """The connection, once it is there: opening one is bounded by whoever does."""
        return self._future.result()

    def abandon(self) -> None:
        """It is not needed any more: close it as soon as it is open."""
        self._future.add_done_callback(self._drop)

    def _open(self) -> None:
        try:
            self._future.set_result(self._open_one())
        except Exception as error:  # who asked for it is told, whatever it is
            self._future.set_exception(error)

    def _drop(self, future: "Future[T]") -> None:
        if future.exception() is None:
            self._close(future.result())
