"""How deep the queues of many outboxes are, and who takes from them.

A broker is asked about each queue once, however many outboxes send to it. Which queues an outbox
sends to is found out by its chores.
"""

from collections.abc import Callable, Hashable, Sequence
from math import inf
from time import monotonic
from typing import Final

import structlog

from outbox_relay.core.depth import Depth
from outbox_relay.errors import RelayError
from outbox_relay.many import alike
from outbox_relay.many.desk import Desk
from outbox_relay.observe.queues import EVERY, EVERY_QUIET
from outbox_relay.observe.watch import Watch
from outbox_relay.operator import depths

log = structlog.get_logger()

#: The most queues that one broker is asked about at a time: about a millisecond each.
MAX_QUEUES: Final = 500


class Queues(Watch):
    """Looks every so often; a context manager that stops it."""

    def __init__(self, desks: Callable[[], Sequence[Desk]], *, every: float = EVERY) -> None:
        super().__init__("queues")
        self._desks, self._every = desks, every
        self._looked: dict[Hashable, float] = {}

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            for desks in self._due(monotonic()):
                if self._stopped.is_set():
                    return
                _look(desks)

    def _due(self, now: float) -> list[list[Desk]]:
        """The outboxes of each broker that is to be asked: seldom, where none of them is active."""
        shared: dict[Hashable, list[Desk]] = {}
        for desk in self._desks():
            shared.setdefault(alike.for_depths(desk.outbox.settings), []).append(desk)
        self._looked = {key: self._looked.get(key, -inf) for key in shared}
        due = [
            key
            for key, desks in shared.items()
            if any(desk.active for desk in desks) or now - self._looked[key] >= EVERY_QUIET
        ]
        self._looked.update(dict.fromkeys(due, now))
        return [shared[key] for key in due]


def _look(desks: Sequence[Desk]) -> None:
    """Show each of these outboxes what is known of its queues."""
    names = list(dict.fromkeys(name for desk in desks for name in desk.queues))[:MAX_QUEUES]
    found: dict[str, Depth] = {}
    if names:
        try:
            found = {each.queue: each for each in depths.of(desks[0].outbox.settings, names)}
        except RelayError as error:
            log.debug("queues_unread", reason=str(error))
    for desk in desks:
        desk.metrics.queues(found[name] for name in desk.queues if name in found)
