"""Finished bytes are put on a socket as fast as they are answered: so are limits measured.

At most a window of messages is unanswered, as with the relay. They go a hundred per write.
"""

import socket
from collections.abc import Sequence
from itertools import cycle
from typing import Final, Protocol

from bench.instruments.run import Stopwatch

#: What the relay has by default.
WINDOW: Final = 4000
BATCH: Final = 100
#: The longest without an answer.
SILENCE_SECONDS: Final = 60
RECEIVE_BYTES: Final = 1 << 18


class Answers(Protocol):
    """Reads what a broker answers."""

    @property
    def count(self) -> int:
        """How many messages are answered."""

    def feed(self, data: bytes) -> None:
        """Take note of what arrived; raises what ends the run."""


def publish(
    sock: socket.socket, blobs: Sequence[bytes], total: int, answers: Answers, watch: Stopwatch
) -> None:
    """Write blobs of BATCH messages, again and again, until `total` messages are answered."""
    sent, following = 0, cycle(blobs)
    while answers.count < total:
        while sent < total and sent + BATCH - answers.count <= WINDOW:
            sock.sendall(next(following))
            sent += BATCH
        answers.feed(sock.recv(RECEIVE_BYTES))
        watch.beat()
