"""Settles late what a turn could not settle; deletes what is settled, if nothing is to be kept.

A turn cannot settle a row that somebody has locked, or another relay has claimed. Such a row is
tried again a second later.
"""

from collections.abc import Sequence

from outbox_relay.core.message import Message
from outbox_relay.loop.refused import CATCH_UP_EVERY
from outbox_relay.postgres.store import Store


class Settling:
    """Confirmed messages that are not settled yet. With `forget`, what is sent is not kept."""

    def __init__(self, *, forget: bool) -> None:
        self._forget = forget
        self._late: list[Message] = []
        self._again_at = 0.0

    @property
    def late(self) -> bool:
        """Whether anything that was confirmed is not settled yet."""
        return bool(self._late)

    def passed_over(self, done: Sequence[Message], ids: Sequence[int]) -> None:
        """A turn has settled the messages in `done`, except those with these ids."""
        if ids:
            late = set(ids)
            self._late += [message for message in done if message.id in late]
            self._again_at = 0.0

    def catch_up(self, store: Store, now: float, *, again: bool = False) -> None:
        """Try to settle what is late: once a second, or now with `again`. Locked rows stay late."""
        if not self._late or (now < self._again_at and not again):
            return
        self._again_at = now + CATCH_UP_EVERY
        locked = store.settle_late(self._late)
        self.forget(store, [message for message in self._late if message.id not in locked])
        self._late = [message for message in self._late if message.id in locked]

    def forget(self, store: Store, settled: Sequence[Message]) -> None:
        """These are settled: drop them if what is sent is not kept."""
        if settled and self._forget:
            store.forget(settled)
