"""The socket under a publisher: never blocks, never waits longer than it is told to.

The client libraries make the connection (addresses, TLS, authentication, negotiation); from then on
the socket is ours, because they write one message at a time and cannot bound their waits.
"""

import select
import socket
import ssl
from time import monotonic
from typing import Final

from outbox_relay.errors import BrokerLost

RECEIVE_BYTES: Final = 1 << 18
#: How long the kernel may take to deliver bytes. py-amqp's one second is too short: a broker may
#: pause for longer.
USER_TIMEOUT_MS: Final = 30_000


class Link:
    """Sends what it can, buffers the rest, reads what is there, and keeps the heartbeat.

    `beat` is what to say twice every `heartbeat` seconds; 0 means that none is agreed.
    """

    def __init__(
        self, sock: socket.socket, heartbeat: float, leftover: bytes, beat: bytes = b""
    ) -> None:
        self._socket = sock
        self._heartbeat = heartbeat
        self._beat_bytes = beat
        self._arrived = leftover
        self._outgoing = bytearray()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._heard = self._spoke = monotonic()
        sock.setblocking(False)
        self.patient(False)

    @property
    def heard(self) -> float:
        """When the peer last said anything, in monotonic seconds."""
        return self._heard

    @property
    def spoke(self) -> float:
        """When the kernel last took anything for the peer, in monotonic seconds."""
        return self._spoke

    @property
    def backlog(self) -> int:
        """Bytes accepted by `send` that the kernel has not taken yet."""
        return len(self._outgoing)

    def patient(self, patient: bool) -> None:
        """Whether the peer has said that it will read nothing for a while.

        The kernel counts a closed receive window as undelivered bytes.
        """
        limit = 0 if patient else USER_TIMEOUT_MS
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)

    def send(self, data: bytes) -> None:
        """Write now what the socket takes, and the rest as `pump` finds room."""
        if self._outgoing:
            self._outgoing += data
            return
        written = self._write(data)
        if written < len(data):
            self._outgoing += memoryview(data)[written:]
            self._poll.modify(self._socket, select.POLLIN | select.POLLOUT)

    def pump(self, timeout: float) -> bytes:
        """Whatever arrived, waiting at most `timeout` seconds for something to.

        Raises BrokerLost where the link is closed, or silent for two heartbeats.
        """
        self._beat()
        arrived, self._arrived = self._arrived, b""
        if arrived:
            return arrived
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return self._read()
        ready = self._poll.poll(max(0.0, timeout) * 1000)
        if not ready:
            return b""
        if ready[0][1] & select.POLLOUT:
            self._flush()
        return self._read()

    def close(self) -> None:
        """Close the socket at once, whatever is unsent."""
        self._socket.close()
        self._outgoing.clear()

    def _beat(self) -> None:
        if not self._heartbeat:
            return
        now = monotonic()
        if now - self._heard > 2 * self._heartbeat:
            # Read once more before giving up: this process may have been the one that was paused.
            self._arrived += self._read()
            if now - self._heard > 2 * self._heartbeat and not self._arrived:
                raise BrokerLost(f"the broker has been silent for {now - self._heard:.0f} s")
        if now - self._spoke > self._heartbeat / 2 and not self._outgoing:
            self.send(self._beat_bytes)

    def _flush(self) -> None:
        del self._outgoing[: self._write(bytes(self._outgoing[: 1 << 20]))]
        if not self._outgoing:
            self._poll.modify(self._socket, select.POLLIN)

    def _write(self, data: bytes) -> int:
        try:
            written = self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except OSError as error:
            raise BrokerLost(f"the connection broke: {error}") from error
        self._spoke = monotonic()
        return written

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError as error:
            raise BrokerLost(f"the connection broke: {error}") from error
        if not data:
            raise BrokerLost("the broker closed the connection")
        self._heard = monotonic()
        return data
