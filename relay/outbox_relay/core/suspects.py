"""Poison suspects that wait to be published in quarantine. Pure.

Each is here once, and all of them together take no more memory than may be in flight.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from outbox_relay.core.message import Message

#: How many may wait here; any more are parked.
MAX_WAITING: Final = 4000
#: Their size, in bytes, at which no more are taken.
MAX_WAITING_BYTES: Final = 64 << 20


class Suspects:
    """Suspects in the order in which they were claimed. They are taken from both ends in turn."""

    def __init__(self) -> None:
        self._messages: OrderedDict[int, Message] = OrderedDict()
        self._bytes = 0
        self._from_the_end = True  # where the last one was taken

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return len(self._messages) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES

    def add(self, message: Message) -> None:
        """Let it wait. It replaces the same message under an older claim."""
        self._drop(message.id)
        self._messages[message.id] = message
        self._bytes += message.size

    def take(self, count: int) -> list[Message]:
        """Up to so many, from both ends in turn.

        Poison comes in blocks. Good messages stand around a block and do not wait for all of it.
        """
        taken = []
        for _ in range(min(count, len(self._messages))):
            self._from_the_end = not self._from_the_end
            _, message = self._messages.popitem(last=self._from_the_end)
            self._bytes -= message.size
            taken.append(message)
        return taken

    def forget(self, ids: Iterable[int]) -> None:
        """These are no longer held."""
        for id_ in ids if self._messages else ():
            self._drop(id_)

    def _drop(self, id_: int) -> None:
        if message := self._messages.pop(id_, None):
            self._bytes -= message.size
