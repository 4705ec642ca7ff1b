"""A broker that speaks AMQP frames, and is as unhelpful as the protocol permits.

It stores and confirms at once, or when the test says so: later, out of order, in one confirm for
many, or never. It returns, nacks, closes the channel over what it will not take, has alarms, and
goes away. What a message is like is told by its routing key, which message it is by its body.
"""

from collections import Counter
from collections.abc import Callable
from struct import pack, unpack_from
from typing import Any

from outbox_relay.errors import BrokerLost
from tests.relay.model.hub import Process

CHANNEL = 1
END = b"\xce"
POISON, UNROUTABLE, FULL = "poison", "nowhere", "full"
#: Among messages: a new channel begins.
CHANNEL_OPEN = (0, "", "")


class ModelBroker:
    """Queues, and the connections to them."""

    def __init__(self) -> None:
        self.up = True
        self.alarm = False
        self.holding = False  # neither stores nor confirms until told to
        self.full = False
        self.stored: Counter[int] = Counter()
        self.read: set[int] = set()
        self.connected = 0
        self.connections: list[Connection] = []

    def connect(self, process: Process) -> "Connection":
        """A connection with a confirming channel."""
        process.wait()
        if not self.up:
            raise BrokerLost("the broker is away")
        self.connections = [each for each in self.connections if each.busy]
        self.connected += 1
        connection = Connection(self, process)
        self.connections.append(connection)
        if self.alarm:
            connection.announce(True)
        return connection

    def fail(self) -> None:
        """Go away: what is not stored is lost, what is not confirmed stays unconfirmed."""
        self.up = False
        for connection in self.connections:
            connection.drop()

    def set_alarm(self, alarm: bool) -> None:
        """Ask for a pause, or for no more of it."""
        if alarm != self.alarm:
            self.alarm = alarm
            for connection in self.connections:
                connection.announce(alarm)
                connection.work()

    def release(self, choose: Callable[[int], int], *, together: bool) -> None:
        """Store one held message of each connection, or one and all before it; confirm."""
        for connection in self.connections:
            connection.release(choose, together=together)

    def heal(self) -> None:
        """Be as helpful as can be from now on."""
        self.up, self.full = True, False
        self.set_alarm(False)
        self.resume()

    def resume(self) -> None:
        """Store and confirm everything again, at once."""
        self.holding = False
        for connection in self.connections:
            connection.work()


class Connection:
    """A socket between a relay and the broker, and the broker's end of it."""

    def __init__(self, broker: ModelBroker, process: Process) -> None:
        self._broker, self._process = broker, process
        self._unread: list[tuple[int, str, str]] = []
        self._unstored: dict[int, tuple[int, str]] = {}  # by delivery tag
        self._outgoing = b""
        self._tags = 0
        self._dead = False  # the channel; the relay may begin another
        self.open = True
        self._left = False  # by the relay
        # What AmqpPublisher looks at in a connection of py-amqp.
        self.transport = self
        self.sock = self
        self._read_buffer = b""
        self.frame_max = 131_072
        self.heartbeat = 0
        self.channel_id = CHANNEL

    def channel(self) -> "Connection":
        """The one channel."""
        return self

    def confirm_select(self) -> None:
        """Every channel confirms."""

    @property
    def busy(self) -> bool:
        """Whether anything can still come of it."""
        return self.open and not (self._left and not self._unread and not self._unstored)

    def drop(self) -> None:
        """Nothing more passes, either way."""
        self.open = False
        self._unread, self._unstored, self._outgoing = [], {}, b""

    def announce(self, alarm: bool) -> None:
        """connection.blocked, or unblocked."""
        if self.open:
            self._say(10, 60 if alarm else 61, _text("low on memory") if alarm else b"")

    def send(self, data: bytes) -> None:
        """Bytes from the relay."""
        if not self.open:
            raise BrokerLost("the connection broke")
        for message in _published(data):
            if message == CHANNEL_OPEN:
                self._tags, self._dead = 0, False
            elif not self._dead:
                self._unread.append(message)
                self.work()

    def pump(self, timeout: float) -> bytes:
        """Bytes for the relay."""
        self._process.wait(0.0 if self._outgoing or not self.open else timeout)
        if not self.open and not self._outgoing:
            raise BrokerLost("the broker closed the connection")
        arrived, self._outgoing = self._outgoing, b""
        return arrived

    def close(self) -> None:
        """The relay lets go; the broker may yet read what was sent before."""
        self._left = True

    collect = close

    def work(self) -> None:
        """Read what has arrived, and deal with it."""
        if self._broker.alarm:
            return
        while self._unread and self.open:
            id_, key, exchange = self._unread.pop(0)
            self._tags += 1
            self._broker.read.add(id_)
            if key == POISON:
                self._close_channel(406, "PRECONDITION_FAILED")
            elif key == UNROUTABLE:
                self._return(id_, key, exchange)
                self._confirm(self._tags)
            else:
                self._unstored[self._tags] = id_, key
        if not self._broker.holding:
            for tag in list(self._unstored):
                self._confirm(tag, ack=self._store(tag))

    def release(self, choose: Callable[[int], int], *, together: bool) -> None:
        """Store one held message, chosen by its position; or it and all before it."""
        if not self._unstored:
            return
        tags = sorted(self._unstored)
        chosen = choose(len(tags) - 1)
        if together and not self._broker.full:
            for tag in tags[: chosen + 1]:
                self._store(tag)
            self._confirm(tags[chosen], multiple=True)
        else:
            self._confirm(tags[chosen], ack=self._store(tags[chosen]))

    def _store(self, tag: int) -> bool:
        id_, key = self._unstored.pop(tag)
        if key == FULL and self._broker.full:
            return False
        self._broker.stored[id_] += 1
        return True

    def _confirm(self, tag: int, *, ack: bool = True, multiple: bool = False) -> None:
        self._say(60, 80 if ack else 120, pack(">QB", tag, multiple))

    def _return(self, id_: int, key: str, exchange: str) -> None:
        arguments = pack(">H", 312) + _text("NO_ROUTE") + _text(exchange) + _text(key)
        self._say(60, 50, arguments)
        header = pack(">HHQH", 60, 0, 0, 1 << 7) + _text(f"m{id_}")
        self._outgoing += pack(">BHI", 2, CHANNEL, len(header)) + header + END

    def _close_channel(self, code: int, text: str) -> None:
        """What was read and is not stored by now may never be; what was not read never is."""
        self._say(20, 40, pack(">H", code) + _text(text) + pack(">HH", 60, 40))
        self._dead = True
        self._unread, self._unstored = [], {}

    def _say(self, class_: int, method: int, arguments: bytes) -> None:
        payload = pack(">HH", class_, method) + arguments
        self._outgoing += pack(">BHI", 1, CHANNEL, len(payload)) + payload + END


class ModelTopology:
    """Everything exists already."""

    def prepare(self, _: object) -> dict[Any, Any]:
        """Nothing to declare."""
        return {}

    def forget(self, message: object) -> None:
        """Nothing to forget."""


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _published(data: bytes) -> list[tuple[int, str, str]]:
    """The id, routing key and exchange of each message in frames; bodies are one frame each.

    CHANNEL_OPEN stands for a new channel, before what is published on it.
    """
    published, position, route = [], 0, ("", "")
    while position < len(data):
        kind, _, size = unpack_from(">BHI", data, position)
        payload = data[position + 7 : position + 7 + size]
        position += 8 + size
        if kind == 1 and payload[:4] == pack(">HH", 20, 10):
            published.append(CHANNEL_OPEN)
        elif kind == 1 and payload[:2] == pack(">H", 60):
            exchange = payload[7 : 7 + payload[6]]
            rest = payload[7 + payload[6] :]
            route = rest[1 : 1 + rest[0]].decode(), exchange.decode()
        elif kind == 3:
            published.append((int(payload), *route))
    return published
