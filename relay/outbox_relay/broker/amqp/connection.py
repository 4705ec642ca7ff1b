"""A connection that kombu has opened and we drive: its socket, and what was negotiated."""

from typing import Final

import amqp

from outbox_relay.broker.amqp.encode import HEARTBEAT_FRAME
from outbox_relay.broker.link import Link

#: Codes with which a broker closes a connection over something that was sent (AMQP 0-9-1, 1.2). Not
#: among them is 320: an operator closed it.
POISON_CODES: Final = frozenset({501, 502, 503, 505, 540, 541})
#: The limits that hold where neither side names one.
DEFAULT_FRAME_MAX: Final = 131_072
MAX_CHANNELS: Final = 65_535


class AmqpConnection:
    """Takes the socket over from a connection of py-amqp, which is not to be used any more."""

    def __init__(self, connection: amqp.Connection) -> None:
        transport = connection.transport
        self._connection = connection  # keeps the socket's owner alive
        self.frame_max: int = connection.frame_max or DEFAULT_FRAME_MAX
        self.channel_max: int = connection.channel_max or MAX_CHANNELS
        heartbeat, leftover = connection.heartbeat or 0, bytes(transport._read_buffer)
        self.link = Link(transport.sock, heartbeat, leftover, HEARTBEAT_FRAME)

    def close(self) -> None:
        """Drop the connection; a closing handshake could hang on a blocked broker."""
        self.link.close()
        self._connection.collect()
