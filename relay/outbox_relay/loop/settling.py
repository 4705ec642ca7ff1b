"""What is confirmed and late to be settled; and what is settled, which is forgotten if not kept.

Somebody's lock, or another relay's claim, may be in the way: it is tried again a second later.
"""

from collections.abc import Sequence

from outbox_relay.core.message import Message
from outbox_relay.loop.refused import CATCH_UP_EVERY
from outbox_relay.postgres.store import Store


class Settling:
    """What is late; with `forget`, what is sent is not kept. `now` is in monotonic seconds."""

    def __init__(self, *, forget: bool) -> None:
        self._forget = forget
        self._late: list[Message] = []
        self._again_at = 0.0

    @property
    def late(self) -> bool:
        """Whether anything that was confirmed is not settled yet."""
        return bool(self._late)

    def passed_over(self, done: Sequence[Message], ids: Sequence[int]) -> None:
        """A turn has settled what was done, but for these."""
        if ids:
            late = set(ids)
            self._late += [message for message in done if message.id in late]
            self._again_at = 0.0

    def catch_up(self, store: Store, now: float, *, again: bool = False) -> None:
        """Settle what is late if it is time, or `again`; unless somebody's lock is still there."""
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
