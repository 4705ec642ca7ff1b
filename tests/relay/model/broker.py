"""A broker that speaks AMQP frames, and is as unhelpful as the protocol permits.

It stores and confirms at once, or when the test says so: later, out of order, in one confirm for
many, or never. It returns, nacks, closes the channel over what it will not take, has alarms, and
goes away. What a message is like is told by its routing key, which message it is by its body.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from struct import pack, unpack_from
from typing import Generic, NamedTuple, TypeVar

from outbox_relay.errors import BrokerLost
from tests.relay.model.hub import Process

Opened = TypeVar("Opened")

END = b"\xce"
#: Over the first two it closes the channel, and the whole connection.
POISON, LETHAL, UNROUTABLE, FULL = "poison", "lethal", "nowhere", "full"
#: A queue of which no declaration is answered while it hangs; one that stores nothing while it is
#: frozen; and one to which we may not publish for a while.
HANGING, FROZEN, FORBIDDEN = "hanging", "frozen", "forbidden"
#: From a connection with more for a frozen queue nothing more is read.
CREDIT = 2
#: The channel that py-amqp opens.
CHANNEL = 1
ENDS, DECLARED = "ends", "declared"


class Published(NamedTuple):
    """A message as it was read from a channel.

    Without an id, the channel begins or ENDS, or a queue is DECLARED, whose name stands for the
    exchange.
    """

    channel: int
    id: int | None = None
    key: str = ""
    exchange: str = ""


@dataclass
class Channel:
    """What the broker knows of a confirming channel."""

    tags: int = 0
    dead: bool = False
    unstored: dict[int, tuple[int, str]] = field(default_factory=dict)  # by delivery tag


class ModelBroker:
    """Queues, and the connections to them."""

    def __init__(self) -> None:
        self.up = True
        self.alarm = False
        self.holding = False  # neither stores nor confirms until told to
        self.full = self.hanging = self.frozen = self.forbidden = False
        self.hung = 0  # declarations that were never answered
        self.stopped = 0  # how often there was too much for a frozen queue
        self.stored: Counter[int] = Counter()
        self.read: set[int] = set()
        self.connected = 0
        self.connections: list[Connection] = []

    def connect(self, process: Process, *, for_messages: bool = True) -> "Connection":
        """A connection; only those for messages are counted."""
        process.wait()
        if not self.up:
            raise BrokerLost("the broker is away")
        self.connections = [each for each in self.connections if each.busy]
        self.connected += for_messages
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
        self.up = True
        self.full = self.hanging = self.frozen = self.forbidden = False
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
        self._unread: list[Published] = []
        self._channels: dict[int, Channel] = {}
        self._outgoing = b""
        self.open = True
        self._left = False  # by the relay
        # What AmqpPublisher looks at in a connection of py-amqp.
        self.transport = self
        self.sock = self
        self._read_buffer = b""
        self.frame_max = 131_072
        self.heartbeat = 0
        self.heard = self.spoke = -inf  # when anything came from the broker last, and from us
        self.backlog = 0
        self.channel_id = CHANNEL
        self.channel_max = 64

    def channel(self) -> "Connection":
        """Begin the one that py-amqp opens."""
        self._channels[CHANNEL] = Channel()
        return self

    def confirm_select(self) -> None:
        """Every channel confirms."""

    @property
    def busy(self) -> bool:
        """Whether anything can still come of it."""
        owing = self._unread or any(channel.unstored for channel in self._channels.values())
        return self.open and not (self._left and not owing)

    def drop(self) -> None:
        """Nothing more passes, either way."""
        self.open = False
        self._unread, self._channels, self._outgoing = [], {}, b""

    def announce(self, alarm: bool) -> None:
        """connection.blocked, or unblocked."""
        if self.open:
            self._say(0, 10, 60 if alarm else 61, _text("low on memory") if alarm else b"")

    def send(self, data: bytes) -> None:
        """Bytes from the relay."""
        self.spoke = self._process.now
        if not self.open:
            raise BrokerLost("the connection broke")
        for message in _published(data):
            if message.key == ENDS:
                del self._channels[message.channel]
            elif message.key == DECLARED:
                self._declare(message)
            elif message.id is None:
                assert self._channels.get(message.channel, Channel(dead=True)).dead, "open twice"
                self._channels[message.channel] = Channel()
            elif self.open and not self._channels[message.channel].dead:
                self._unread.append(message)
                self.work()

    def _declare(self, message: Published) -> None:
        """queue.declare-ok, unless the queue hangs: then never."""
        if message.exchange == HANGING and self._broker.hanging:
            self._broker.hung += 1
        else:
            self._say(message.channel, 50, 11, _text(message.exchange) + pack(">LL", 0, 0))

    def pump(self, timeout: float) -> bytes:
        """Bytes for the relay."""
        self._process.wait(0.0 if self._outgoing or not self.open else timeout)
        if not self.open and not self._outgoing:
            raise BrokerLost("the broker closed the connection")
        arrived, self._outgoing = self._outgoing, b""
        if arrived:
            self.heard = self._process.now
        return arrived

    def patient(self, patient: bool) -> None:
        """There is no kernel to be told."""

    def close(self) -> None:
        """The relay lets go; the broker may yet read what was sent before."""
        self._left = True

    collect = close

    def work(self) -> None:
        """Read what has arrived, and deal with it."""
        if self._broker.alarm:
            return
        while self._unread and self.open and not self._out_of_credit():
            number, id_, key, exchange = self._unread.pop(0)
            assert id_ is not None
            channel = self._channels[number]
            channel.tags += 1
            self._broker.read.add(id_)
            if key == POISON:
                self._close_channel(number, 406, "PRECONDITION_FAILED")
            elif key == FORBIDDEN and self._broker.forbidden:
                self._close_channel(number, 403, "ACCESS_REFUSED")
            elif key == LETHAL:
                self._close()
            elif key == UNROUTABLE:
                self._return(number, id_, key, exchange)
                self._confirm(number, channel.tags)
            else:
                channel.unstored[channel.tags] = id_, key
        if not self._broker.holding:
            for number, channel in self._channels.items():
                for tag in self._storable(channel):
                    self._confirm(number, tag, ack=self._store(channel, tag))

    def release(self, choose: Callable[[int], int], *, together: bool) -> None:
        """Store one held message of each channel, chosen by its position; or it and all before."""
        for number, channel in self._channels.items():
            if not (tags := self._storable(channel)):
                continue
            chosen = choose(len(tags) - 1)
            if together and len(tags) == len(channel.unstored) and not self._broker.full:
                for tag in tags[: chosen + 1]:
                    self._store(channel, tag)
                self._confirm(number, tags[chosen], multiple=True)
            else:
                self._confirm(number, tags[chosen], ack=self._store(channel, tags[chosen]))

    def _storable(self, channel: Channel) -> list[int]:
        """The tags of what its queue would store now."""
        frozen = self._broker.frozen
        return [t for t, (_, key) in channel.unstored.items() if not (frozen and key == FROZEN)]

    def _out_of_credit(self) -> bool:
        """Whether so much is for a frozen queue that nothing more is read."""
        keys = [key for c in self._channels.values() for _, key in c.unstored.values()]
        out = self._broker.frozen and keys.count(FROZEN) > CREDIT
        self._broker.stopped += out
        return out

    def _store(self, channel: Channel, tag: int) -> bool:
        id_, key = channel.unstored.pop(tag)
        if key == FULL and self._broker.full:
            return False
        self._broker.stored[id_] += 1
        return True

    def _confirm(self, channel: int, tag: int, *, ack: bool = True, multiple: bool = False) -> None:
        self._say(channel, 60, 80 if ack else 120, pack(">QB", tag, multiple))

    def _return(self, channel: int, id_: int, key: str, exchange: str) -> None:
        arguments = pack(">H", 312) + _text("NO_ROUTE") + _text(exchange) + _text(key)
        self._say(channel, 60, 50, arguments)
        header = pack(">HHQH", 60, 0, 0, 1 << 7) + _text(f"m{id_}")
        self._outgoing += pack(">BHI", 2, channel, len(header)) + header + END

    def _close_channel(self, number: int, code: int, text: str) -> None:
        """What was read and is not stored by now may never be; what was not read never is."""
        self._say(number, 20, 40, pack(">H", code) + _text(text) + pack(">HH", 60, 40))
        self._channels[number] = Channel(dead=True)
        self._unread = [message for message in self._unread if message.channel != number]

    def _close(self) -> None:
        """The same for all channels; what has been said may still be heard."""
        self._say(0, 10, 50, pack(">H", 541) + _text("INTERNAL_ERROR") + pack(">HH", 60, 40))
        self.open = False
        self._unread, self._channels = [], {}

    def _say(self, channel: int, class_: int, method: int, arguments: bytes) -> None:
        payload = pack(">HH", class_, method) + arguments
        self._outgoing += pack(">BHI", 1, channel, len(payload)) + payload + END


class ModelOpening(Generic[Opened]):
    """A connection beside that of the messages: open, or refused, at once."""

    def __init__(self, connect: Callable[[], Opened]) -> None:
        self._connect = connect

    def result(self) -> Opened:
        """The connection."""
        return self._connect()

    def abandon(self) -> None:
        """It was never opened."""


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _published(data: bytes) -> list[Published]:
    """The messages in frames, and the channels begun; bodies are one frame each."""
    published, position, route = [], 0, ("", "")
    while position < len(data):
        kind, channel, size = unpack_from(">BHI", data, position)
        payload = data[position + 7 : position + 7 + size]
        position += 8 + size
        if kind == 1 and payload[:4] == pack(">HH", 20, 10):
            published.append(Published(channel))
        elif kind == 1 and payload[:4] == pack(">HH", 20, 40):
            published.append(Published(channel, key=ENDS))
        elif kind == 1 and payload[:4] == pack(">HH", 50, 10):
            name = payload[7 : 7 + payload[6]].decode()
            published.append(Published(channel, key=DECLARED, exchange=name))
        elif kind == 1 and payload[:2] == pack(">H", 60):
            exchange = payload[7 : 7 + payload[6]]
            rest = payload[7 + payload[6] :]
            route = rest[1 : 1 + rest[0]].decode(), exchange.decode()
        elif kind == 3:
            published.append(Published(channel, int(payload), *route))
    return published
