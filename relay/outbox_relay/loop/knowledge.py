"""Keeps the guard's knowledge of workers new, on a thread and a connection of its own.

When it changes, what waits for a worker is tried: by then its worker may be there, or nobody may
be left who says what is known, and what cannot be known is published.
"""

import threading
from collections.abc import Callable
from contextlib import closing
from time import monotonic
from typing import Final, Self

import structlog

from outbox_relay.core.guard import Guard
from outbox_relay.core.rounds import Quiet, Rounds, never
from outbox_relay.errors import RelayError
from outbox_relay.observe.watch import Watch
from outbox_relay.postgres.workers import Workers

log = structlog.get_logger()

#: Between two looks, in seconds.
EVERY: Final = 2.0
EVERY_QUIET: Final = 10.0  # while nothing moves
#: How long the start of a relay waits for the first one.
FIRST_WITHIN: Final = 5.0
#: At how many looks after a change what waits is tried: some is only being parked at the first.
WAKINGS: Final = 3
NOT_THERE: Final = "no inbox.worker that may be read, here or at OUTBOX_INBOX_URL"


class Knowledge(Watch):
    """Looks every so often; a context manager that waits for the first look, and stops it."""

    def __init__(
        self,
        guard: Guard,
        open_workers: Callable[[], Workers],
        *,
        every: float = EVERY,
        quiet: Quiet = never,
    ) -> None:
        super().__init__("known-tasks")
        self._rounds = Rounds(EVERY_QUIET, quiet)
        self._guard, self._open, self._every = guard, open_workers, every
        self._looked = threading.Event()

    def __enter__(self) -> Self:
        super().__enter__()
        self._looked.wait(FIRST_WITHIN)
        return self

    def _run(self) -> None:
        failing = False
        while not self._stopped.is_set():
            try:
                with closing(self._open()) as workers:
                    self._watch(workers)
            except RelayError as error:
                if not failing:
                    log.warning("workers_unread", reason=str(error))
                failing = True
            self._stopped.wait(self._every)

    def _watch(self, workers: Workers) -> None:
        last: str | None = "not looked yet"
        wakings = 0
        while not self._stopped.is_set():
            if not (self._rounds.are_due(monotonic()) or wakings):
                self._stopped.wait(self._every)
                continue
            if (now := workers.fingerprint()) != last:
                if now is None:
                    log.warning("workers_unread", reason=NOT_THERE)
                self._guard.known = workers.known()
                last = now
                self._looked.set()
                wakings = WAKINGS
            if wakings:
                wakings -= 1
                if woken := workers.wake():
                    log.info("messages_woken", messages=woken, why="other workers are alive")
            self._stopped.wait(self._every)
