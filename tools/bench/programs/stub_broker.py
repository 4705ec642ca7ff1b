"""An AMQP broker that stores nothing and confirms at once: what is left is the relay's own cost.

Each channel counts its messages by itself, as in AMQP: a confirm names the channel it is for.
Run as `python -m bench.programs.stub_broker`; prints its URL, serves one connection after another,
and ends with its parent (its standard input closes).
"""

import select
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from struct import Struct
from typing import Final

from bench.programs.child import first_line, started

HEAD: Final = Struct(">BHI")
ACK: Final = Struct(">BHIHHQBB")
#: connection.start: version 0-9, no properties, PLAIN, en_US
START: Final = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US"
TUNE: Final = b"\x00\x0a\x00\x1e\x07\xff\x00\x02\x00\x00\x00\x00"  # 2047 channels, 128 KiB, no beat
#: (class, method) of the client's requests, and what satisfies them
REPLIES: Final = {
    (10, 11): TUNE,
    (10, 40): b"\x00\x0a\x00\x29\x00",  # open -> open-ok
    (10, 50): b"\x00\x0a\x00\x33",  # close -> close-ok
    (20, 10): b"\x00\x14\x00\x0b\x00\x00\x00\x00",
    (20, 40): b"\x00\x14\x00\x29",
    (40, 10): b"\x00\x28\x00\x0b",  # exchange.declare-ok
    (50, 10): b"\x00\x32\x00\x0b\x01q\x00\x00\x00\x00\x00\x00\x00\x00",  # queue.declare-ok
    (50, 20): b"\x00\x32\x00\x15",  # queue.bind-ok
    (85, 10): b"\x00\x55\x00\x0b",  # confirm.select-ok
}
#: the class of channel.open, channel.close and their answers
CHANNEL: Final = 20
PUBLISH: Final = b"\x00\x3c\x00\x28"


@contextmanager
def stub_brokers(count: int) -> Iterator[list[tuple[str, int]]]:
    """Run as many, one for each relay, for the length of a block: their URLs and process ids."""
    with ExitStack() as stack:
        brokers = [stack.enter_context(started(__name__)) for _ in range(count)]
        yield [(first_line(broker), broker.pid) for broker in brokers]


def frame(channel: int, payload: bytes) -> bytes:
    """A method frame."""
    return HEAD.pack(1, channel, len(payload)) + payload + b"\xce"


class Conversation(threading.Thread):
    """One connection, served until it closes."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self.connection = connection
        #: messages by channel: the delivery tag of its last one
        self.published: dict[int, int] = {}

    def run(self) -> None:
        """Answer the handshake, then confirm whatever has been read completely."""
        rest = self.connection.recv(8)
        self.connection.sendall(frame(0, START))
        rest = b""
        while data := self.connection.recv(1 << 20):
            rest = self.take(rest + data if rest else data)

    def take(self, data: bytes) -> bytes:
        """Walk the frames; one confirm a channel covers every message that arrived on it."""
        position, end, arrived = 0, len(data), set()
        unpack = HEAD.unpack_from
        while end - position >= 7:
            kind, channel, size = unpack(data, position)
            if end - position < size + 8:
                break
            if kind == 1:
                method = data[position + 7 : position + 11]
                if method == PUBLISH:
                    self.published[channel] = self.published.get(channel, 0) + 1
                    arrived.add(channel)
                else:
                    self.answer(channel, method)
            position += size + 8
        for channel in arrived & self.published.keys():
            tag = self.published[channel]
            self.connection.sendall(ACK.pack(1, channel, 13, 60, 80, tag, 1, 0xCE))
        return data[position:]

    def answer(self, channel: int, method: bytes) -> None:
        """Grant what is asked; a channel that is opened or closed counts from the start."""
        key = (int.from_bytes(method[:2], "big"), int.from_bytes(method[2:], "big"))
        if key[0] == CHANNEL:
            self.published.pop(channel, None)
        if reply := REPLIES.get(key):
            self.connection.sendall(frame(channel, reply))


def main() -> None:
    """Listen on a free port until standard input closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"amqp://guest:guest@127.0.0.1:{server.getsockname()[1]}//", flush=True)
        while True:
            ready, _, _ = select.select([server, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            Conversation(server.accept()[0]).start()


if __name__ == "__main__":
    main()
