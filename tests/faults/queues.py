"""The two brokers as a fault test sees them: a URL through a proxy, and what has arrived."""

import json
from base64 import b64decode
from collections import Counter
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import redis
from amqp.exceptions import PreconditionFailed
from kombu import Connection

from servers import Valkey
from servers.server import Server
from tests.fixtures.broker import Broker

_SILENCE_SECONDS = 20.0
_CONSUMER = "test"
_MOST_AT_ONCE = 60_000  # a consumer's prefetch is a 16-bit number


class Queue(Protocol):
    """A broker with a queue that Celery workers would read."""

    @property
    def server(self) -> Server:
        """What may be killed, frozen and started again."""

    @property
    def url(self) -> str:
        """The broker's own URL."""

    def arrived(self, queue: str = "celery") -> Counter[str]:
        """The ids of everything that is in the queue, and how often each."""


class RabbitQueue:
    """A virtual host of a RabbitMQ node. Implements `Queue`."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._taken: dict[str, Counter[str]] = {}

    @property
    def server(self) -> Server:
        """The node."""
        return self.broker.node

    @property
    def url(self) -> str:
        """The virtual host's URL."""
        return self.broker.url

    def arrived(self, queue: str = "celery") -> Counter[str]:
        """Everything that ever arrived: what is in the queue is taken out and remembered."""
        taken = self._taken.setdefault(queue, Counter())
        while self.broker.has(queue) and (more := self._take(queue)):
            taken.update(more)
        return taken

    def _take(self, queue: str) -> list[str]:
        """Take as many messages as there are now; what comes meanwhile stays."""
        got: list[Any] = []
        with Connection(self.url) as connection:
            channel: Any = connection.default_channel  # kombu types what all transports have
            there = channel.queue_declare(queue, passive=True).message_count
            if not there:
                return []
            count = min(there, _MOST_AT_ONCE)
            channel.basic_qos(0, count, a_global=False)
            channel.basic_consume(queue, _CONSUMER, callback=got.append)
            while len(got) < count:
                connection.drain_events(timeout=_SILENCE_SECONDS)
            channel.basic_cancel(_CONSUMER)
            channel.basic_ack(got[-1].delivery_tag, multiple=True)
        return [_task(message) or _id(message.body) for message in got]

    def delete(self, queue: str = "celery") -> None:
        """Delete the queue at a moment when nothing is in it: what was in it is remembered."""
        with Connection(self.url) as connection:
            while True:
                self.arrived(queue)
                channel: Any = connection.channel()
                try:
                    channel.queue_delete(queue, if_empty=True)
                except PreconditionFailed:  # something has come since
                    continue
                return


class ValkeyQueue:
    """A Valkey or Redis server. Implements `Queue`."""

    def __init__(self, server: Valkey) -> None:
        self._server = server

    @property
    def server(self) -> Server:
        """The server."""
        return self._server

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._server.url

    def arrived(self, queue: str = "celery") -> Counter[str]:
        """Everything that is in the queue's list, where it stays."""
        client: Any = redis.Redis.from_url(self.url)  # redis-py's replies may be awaitable
        with client:
            return Counter(
                _id(b64decode(json.loads(envelope)["body"]))
                for envelope in client.lrange(queue, 0, -1)
            )


def through(url: str, port: int) -> str:
    """A server's URL with another port: that of the proxy before it."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}"))


def _task(message: Any) -> str:
    """The id of a message that Celery made: a task's."""
    return str(message.properties.get("correlation_id", ""))


def _id(body: bytes | str) -> str:
    return body[:36].decode() if isinstance(body, bytes) else body[:36]
