"""One transaction: messages for their lists and channels, and the batch's number for the marker.

What goes to one list goes there in one command: the messages of a list are in together, or not.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from outbox_relay.broker.redis import resp
from outbox_relay.broker.redis.envelope import envelope
from outbox_relay.broker.redis.routing import Route, Target
from outbox_relay.core.message import Message

END: Final = b"\r\n"


class Row(NamedTuple):
    """A message in a batch, and the places of the commands that carry it."""

    message: Message
    commands: tuple[int, ...]
    fanout: bool


@dataclass(slots=True)
class _Command:
    target: Target
    place: int
    values: int = 0
    wire: list[bytes] = field(default_factory=list)


class Batch:
    """Filled with `add`, closed by `seal`, and remembered until its replies are there."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows: list[Row] = []
        self.lists: set[bytes] = set()
        self.overhead = 0
        self.replies = 2  # to MULTI and to EXEC
        self.written = 0.0
        self._commands: list[_Command] = []
        self._by_list: dict[bytes, _Command] = {}

    def add(self, message: Message, route: Route, tag: bytes) -> None:
        """Add a message. Raises Unpublishable."""
        priority, payload = envelope(message, tag)
        length = b"$%d\r\n" % len(payload)
        places = []
        for target in route.targets[min(priority, len(route.targets) - 1)]:
            # A command for each message, because its reply says how many listened.
            command = None if route.fanout else self._by_list.get(target.key)
            if command is None:
                command = self._begin(target, fanout=route.fanout)
            command.values += 1
            command.wire += (length, payload, END)
            places.append(command.place)
        self.rows.append(Row(message, tuple(places), route.fanout))

    def _begin(self, target: Target, *, fanout: bool) -> _Command:
        command = _Command(target, len(self._commands))
        self._commands.append(command)
        self.replies += 1
        if not fanout:
            self._by_list[target.key] = command
            self.lists.add(target.key)
        return command

    def seal(self, overhead: list[bytes], now: float) -> bytes:
        """The bytes to send, `overhead` being commands of our own that go first."""
        self.overhead = len(overhead)
        self.replies += len(overhead)
        self.written = now
        wire = [resp.MULTI, *overhead]
        for command in self._commands:
            wire.append(resp.opening(*command.target.words, more=command.values))
            wire += command.wire
        self._commands, self._by_list = [], {}
        return b"".join((*wire, resp.EXEC))
