"""One transaction: messages for their lists and channels, and the batch's number for the marker."""

from typing import NamedTuple

from outbox_relay.message import Message
from outbox_relay.redis import resp
from outbox_relay.redis.envelope import envelope
from outbox_relay.redis.routing import Route


class Row(NamedTuple):
    """A message in a batch, and how many commands carry it."""

    message: Message
    commands: int
    fanout: bool


class Batch:
    """Filled with `add`, closed by `seal`, and remembered until its replies are there."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows: list[Row] = []
        self.lists: set[bytes] = set()
        self.overhead = 0
        self.replies = 2  # to MULTI and to EXEC
        self.written = 0.0
        self._wire: list[bytes] = []

    def add(self, message: Message, route: Route, tag: str) -> None:
        """Take a message aboard. Raises Unpublishable."""
        priority, payload = envelope(message, tag)
        targets = route.targets[min(priority, len(route.targets) - 1)]
        length = b"$%d\r\n" % len(payload)
        for target in targets:
            self._wire += (target.opening, length, payload, b"\r\n")
            if not route.fanout:
                self.lists.add(target.key)
        self.rows.append(Row(message, len(targets), route.fanout))
        self.replies += len(targets)

    def seal(self, overhead: list[bytes], now: float) -> bytes:
        """The bytes to send, `overhead` being commands of our own that go first."""
        self.overhead = len(overhead)
        self.replies += len(overhead)
        self.written = now
        wire, self._wire = self._wire, []
        return b"".join((resp.MULTI, *overhead, *wire, resp.EXEC))
