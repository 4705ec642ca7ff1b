"""Dead letters of a RabbitMQ: got one by one, acknowledged only once they are home.

What is got and not acknowledged goes back to its place when the channel closes. A quorum queue
counts that, and one with a delivery limit drops what came back too often: such a queue is left
alone while a message of somebody else has come back MAX_RETURNS times already.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

from amqp.exceptions import AccessRefused, AMQPError, NotFound, PreconditionFailed, ResourceLocked

from outbox_relay.broker.amqp.check.probe import Probe
from outbox_relay.broker.amqp.connect import open_connection, words_of
from outbox_relay.broker.amqp.passive import Unanswered, ask
from outbox_relay.core.dead_letter import DeadLetter, message_id_of, why
from outbox_relay.errors import BrokerLost

#: A queue that is not there, not this user's to read, or another connection's alone.
CLOSED: Final = (NotFound, AccessRefused, ResourceLocked, PreconditionFailed)
#: How long a queue may take to say how many messages it has, in seconds.
WITHIN: Final = 2.0
#: RabbitMQ 4 drops what a quorum queue had to deliver more often than 20 times.
MAX_RETURNS: Final = 10


class AmqpDeadLetters:
    """Implements `dead_letters.DeadLetters`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = open_connection(url)
        self._channels: dict[str, Any] = {}
        self._limited: dict[str, bool] = {}

    def waiting(self, queue: str) -> int | None:
        """Ask with a channel of its own, which the broker closes where there is no such queue.

        Where the queue hangs, the channel does, until the connection is closed.
        """
        with _translated():
            channel: Any = self._connection.channel()
            try:
                found = ask(channel, queue, WITHIN)
            except (*CLOSED, Unanswered):
                return None
            with suppress(*CLOSED):
                channel.close()
            return found.messages

    def read(self, queue: str, limit: int) -> Iterator[DeadLetter]:
        """Get them: a message that is unacknowledged is not got again."""
        with _translated():
            if queue not in self._channels:
                self._channels[queue] = self._connection.channel()
            for _ in range(limit):
                try:
                    message = self._channels[queue].basic_get(queue, no_ack=False)
                except CLOSED:
                    del self._channels[queue]
                    return
                if message is None:
                    return
                yield self._letter(queue, message)

    def done(self, letters: Sequence[DeadLetter]) -> None:
        """Acknowledge each; a question at the end shows that the broker has heard it."""
        with _translated():
            for letter in letters:
                self._channels[letter.queue].basic_ack(letter.handle)
            for queue in {letter.queue for letter in letters}:
                self._channels[queue].queue_declare(queue, passive=True)

    def may_look_again(self, queue: str) -> bool:
        """Whether it has no delivery limit."""
        return not self._drops_what_returns(queue)

    def close(self) -> None:
        """Drop the connection: the broker puts back what was on it."""
        self._connection.collect()

    def _letter(self, queue: str, message: Any) -> DeadLetter:
        properties = message.properties
        headers = properties.get("application_headers") or {}
        kind, reason = why(headers)
        id_ = message_id_of(headers, properties)
        returns = headers.get("x-delivery-count")
        often = isinstance(returns, int) and returns >= MAX_RETURNS
        endangered = often and self._drops_what_returns(queue)
        return DeadLetter(queue, id_, kind, reason, message.delivery_tag, endangered)

    def _drops_what_returns(self, queue: str) -> bool:
        """Whether it has a delivery limit: from RabbitMQ 4 on, unless it is declared without.

        No classic queue has one. What cannot be known is taken for one that has.
        """
        if queue not in self._limited:
            with closing(Probe(self._url)) as probe:
                try:
                    found = probe.queue(queue)
                except Unanswered:
                    return True
                modern = not probe.version.startswith("3.")
            known = found.arguments if found else {}
            limit = known.get("x-delivery-limit")
            limited = limit != -1 if limit is not None else modern
            classic = found and found.readable and known.get("x-queue-type") in (None, "classic")
            self._limited[queue] = limited and not classic
        return self._limited[queue]


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the library's errors into BrokerLost."""
    try:
        yield
    except (OSError, AMQPError) as error:
        raise BrokerLost(f"the broker closed the connection: {words_of(error)}") from error
