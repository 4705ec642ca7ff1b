"""The limit: finished bytes put on a socket, and confirms counted. No relay can be faster.

The bytes are those the relay would send, mandatory and persistent. There is no database, no
encoding and no bookkeeping beyond the window.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from struct import Struct
from time import monotonic
from typing import Any, Final

import amqp
from kombu.utils.url import parse_url

from bench.instruments import cpu, stored
from bench.instruments.run import Run, timed
from bench.instruments.window import BATCH, SILENCE_SECONDS, publish
from bench.lab import Lab, Unbelievable
from bench.load import messages, queues
from bench.load.queues import Kind
from outbox_relay.broker.amqp.encode import Encoder
from outbox_relay.core.message import Message

#: Distinct messages; they are sent again and again.
DISTINCT: Final = 5000
#: basic.ack: type, channel, size, class, method, tag, multiple, end
ACK: Final = Struct(">BHIHHQBB")
ACK_HEAD: Final = (1, 13, 60, 80)


class Confirms:
    """Counts the tags that are confirmed, in whatever order; anything else ends the run."""

    def __init__(self) -> None:
        self._below = 0  # all tags up to this one are confirmed
        self._beyond: set[int] = set()
        self._rest = b""

    @property
    def count(self) -> int:
        """How many messages are confirmed."""
        return self._below + len(self._beyond)

    def feed(self, data: bytes) -> None:
        """Take note of what arrived."""
        if not data:
            raise Unbelievable("the broker closed the connection")
        data = self._rest + data
        whole = len(data) // ACK.size * ACK.size
        for kind, _, size, class_, method, tag, multiple, _ in ACK.iter_unpack(data[:whole]):
            if (kind, size, class_, method) != ACK_HEAD:
                raise Unbelievable(f"the broker sent method {class_}.{method} instead of acks")
            self._confirm(tag, multiple=bool(multiple))
        self._rest = data[whole:]

    def _confirm(self, tag: int, *, multiple: bool) -> None:
        if multiple:
            self._below = max(self._below, tag)
            self._beyond = {each for each in self._beyond if each > self._below}
        else:
            self._beyond.add(tag)
        while self._below + 1 in self._beyond:
            self._below += 1
            self._beyond.remove(self._below)


def measure(lab: Lab, kind: Kind, count: int, total: int) -> Run:
    """Publish `total` messages to `count` queues of a kind."""
    node = lab.require_rabbitmq()
    routes = queues.fresh(node.url(), kind, count)
    messages.refill(lab, min(DISTINCT, total), routes)
    sent = stored.messages(lab, min(DISTINCT, total))
    with _channel(node.url()) as (sock, channel, frame_max):
        blobs = _blobs(sent, channel, frame_max)
        before = cpu.spent(node.process.pid)
        with timed() as watch:
            publish(sock, blobs, total, Confirms(), watch)
        broker = cpu.spent(node.process.pid) - before
    queues.await_depth(node.url(), routes, total)
    queues.delete(node.url(), routes)
    return Run(total, watch.seconds, {"sender": watch.cpu, "broker": broker}, watch.silence)


def _blobs(sent: Sequence[Message], channel: int, frame_max: int) -> list[bytes]:
    """Frames of a hundred messages each, ready to be written."""
    encoder, now = Encoder(frame_max), monotonic()
    return [
        b"".join(p for m in sent[n : n + BATCH] for p in encoder.frames(m, channel, now))
        for n in range(0, len(sent), BATCH)
    ]


@contextmanager
def _channel(url: str) -> Iterator[tuple[socket.socket, int, int]]:
    """A confirming channel opened by py-amqp: its socket, its number and the largest frame."""
    parts: dict[str, Any] = parse_url(url)
    connection: Any = amqp.Connection(
        f"{parts['hostname']}:{parts['port']}",
        parts["userid"],
        parts["password"],
        virtual_host=parts["virtual_host"],
    )
    connection.connect()
    try:
        channel = connection.channel()
        channel.confirm_select()
        sock = connection.transport.sock
        sock.settimeout(SILENCE_SECONDS)
        yield sock, channel.channel_id, connection.frame_max
    finally:
        connection.collect()
