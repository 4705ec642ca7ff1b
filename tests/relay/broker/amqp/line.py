"""A publisher to a real RabbitMQ, and all it has said."""

from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from outbox_relay.broker.amqp.publisher import AmqpPublisher
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.errors import BrokerLost

DEADLINE: Final = 30.0


@dataclass
class Line:
    """A publisher, and everything it has reported."""

    publisher: AmqpPublisher
    confirmed: list[Message] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def publish(self, *batch: Message) -> None:
        """Put messages on the wire."""
        self.refused += self.publisher.publish(batch)

    def listen(self) -> None:
        """Look once."""
        outcomes = self.publisher.poll(0.05)
        self.confirmed += outcomes.confirmed
        self.refused += outcomes.refused

    def hears(self) -> bool:
        """Look once; always true."""
        self.listen()
        return True

    def land(self) -> None:
        """Listen until nothing is in flight."""
        deadline = monotonic() + DEADLINE
        while self.publisher.in_flight:
            assert monotonic() < deadline, "no confirm came"
            self.listen()

    def until_lost(self) -> BrokerLost:
        """Listen until the link is gone, and return how."""
        deadline = monotonic() + DEADLINE
        while monotonic() < deadline:
            try:
                self.listen()
            except BrokerLost as lost:
                return lost
        raise AssertionError("the link held")

    @property
    def reasons(self) -> dict[int, Reason]:
        """Why each refused message was."""
        return {refusal.message.id: refusal.reason for refusal in self.refused}
