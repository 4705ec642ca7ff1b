"""What waits for a commit: each runs once, or is dropped, and nothing keeps the others from it."""

from collections.abc import Callable, Sequence
from threading import RLock
from typing import Final

ROLLED_BACK: Final = "it was sent in a transaction that was rolled back"


class Held:
    """What runs after the commit, or as somebody asks for its value, whichever is first."""

    def __init__(self, name: str, run: Callable[[], object], drop: Callable[[str], object]) -> None:
        self.name = name
        self._run: Callable[[], object] | None = run
        self._drop = drop
        self._error: Exception | None = None
        #: Held while it runs: another thread that asks waits until it has, this one does not.
        self._running = RLock()

    def run(self) -> None:
        """Run it, unless it has run or was dropped, and keep its error for whoever is told."""
        with self._running:
            run, self._run = self._run, None
            if run is None:
                return
            try:
                run()
            except Exception as error:
                self._error = error

    def take_error(self) -> Exception | None:
        """Return the error that nobody was told of yet."""
        error, self._error = self._error, None
        return error

    def drop(self, reason: str) -> None:
        """Do not run it any more, and have its results say why."""
        with self._running:
            run, self._run = self._run, None
            if run is not None:
                self._drop(reason)


def drop_all(held: Sequence[Held], reason: str) -> None:
    """Drop what was not run."""
    for each in held:
        each.drop(reason)


def run_all(held: Sequence[Held]) -> None:
    """Run all in their order. Raises the first error, with a note of each other one.

    An interrupt ends it, and drops what was still to run.
    """
    first: Exception | None = None
    try:
        for each in held:
            each.run()
            error = each.take_error()
            if first is None:
                first = error
            elif error is not None:
                first.add_note(f"{each.name}, sent in the same transaction, failed too: {error!r}")
    except BaseException as interrupt:
        drop_all(held, f"{type(interrupt).__name__} was raised before its turn")
        raise
    if first is not None:
        raise first
