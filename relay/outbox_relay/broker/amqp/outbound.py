"""From messages to frames. What has no destination or cannot be encoded is refused."""

from collections.abc import Iterable, Sequence

from outbox_relay.broker.amqp.encode import Encoder
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.core.size import too_large
from outbox_relay.errors import Denied, Unpublishable


class Outbound:
    """What every message passes on its way to a channel."""

    def __init__(self, topology: Topology, reserved: frozenset[str]) -> None:
        self._topology = topology
        self._reserved = reserved
        self._encoder = Encoder(0, reserved)
        #: The largest body that the broker takes, once it has said so.
        self.max_body: int | None = None

    def fit(self, frame_max: int) -> None:
        """Write for a connection that takes frames of so many bytes."""
        self._encoder = Encoder(frame_max, self._reserved)

    def frames(
        self, messages: Iterable[Message], channel: int, now: float
    ) -> tuple[list[Message], list[bytes], list[Refusal]]:
        """The messages to be sent, in order; their frames, in pieces; and the refused."""
        sent: list[Message] = []
        frames: list[bytes] = []
        refused: list[Refusal] = []
        for message in messages:
            if self.max_body is not None and len(message.body) > self.max_body:
                refused.append(too_large(message, len(message.body), self.max_body))
                continue
            try:
                frames += self._encoder.frames(message, channel, now)
            except Unpublishable as error:
                reason = Reason.DENIED if isinstance(error, Denied) else Reason.INVALID
                refused.append(Refusal(message, reason, str(error)))
            else:
                sent.append(message)
        return sent, frames, refused

    def came_back(self, refused: Sequence[Refusal]) -> None:
        """Forget the destinations of unroutable messages: they are declared again next time."""
        for refusal in refused:
            if refusal.reason is Reason.UNROUTABLE:
                self._topology.forget(refusal.message)
