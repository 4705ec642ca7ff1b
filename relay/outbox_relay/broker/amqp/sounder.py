"""How many messages are ready in queues of a RabbitMQ: passive declarations.

A queue whose process hangs keeps the channel that it was asked about on, until it answers: the next
question has a channel of its own, and after a few such channels everything a new connection.
"""

from collections.abc import Iterable
from time import monotonic
from typing import Final

from outbox_relay.broker.amqp.check.probe import Probe
from outbox_relay.broker.amqp.passive import Unanswered
from outbox_relay.broker.sounder import Told
from outbox_relay.core.memory import Used

#: How long one queue, and one look, may take; seconds.
WITHIN: Final = 1.0
LOOK_WITHIN: Final = 3.0
#: So many channels may be left to queues that do not answer.
MAX_LEFT: Final = 10


class AmqpSounder:
    """A connection to ask on. Raises BrokerLost where it cannot be opened, or breaks."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._probe = Probe(url)

    def read(self, queues: Iterable[str]) -> Told:
        """Of those that there is time for; one that does not exist yet is absent."""
        give_up = monotonic() + LOOK_WITHIN
        ready: dict[str, int] = {}
        absent: set[str] = set()
        silent: set[str] = set()
        for queue in queues:
            if monotonic() > give_up:
                break
            try:
                depth = self._probe.depth(queue, WITHIN)
            except Unanswered:
                silent.add(queue)
                continue
            if depth is None:
                absent.add(queue)
            else:
                ready[queue] = depth.messages
        if self._probe.left > MAX_LEFT:
            self._probe.close()
            self._probe = Probe(self._url)
        return Told(ready, frozenset(absent), frozenset(silent))

    def memory(self) -> Used:
        """RabbitMQ stops its publishers by itself, and messages need not be in its memory."""
        return Used()

    def close(self) -> None:
        """Drop the connection."""
        self._probe.close()
