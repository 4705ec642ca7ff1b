"""The servers that publishers are tried on: one class for each broker in the registry.

What a test wants of a server (to be full, frozen, to refuse a right) each does in its own way.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol

import pytest
import redis

from outbox_relay.broker.redis import envelope
from servers import Valkey
from tests.fixtures.broker import Broker

#: A queue that `forbidden` users may not write to.
PRIVATE: Final = "private"


class Kind(Protocol):
    """A server of one broker, with nothing on it but an empty queue named celery."""

    @property
    def url(self) -> str:
        """Where it is, with a password."""

    @property
    def password(self) -> str:
        """The password in the URL."""

    def arrived(self, queue: str = "celery") -> list[str]:
        """The correlation ids of what waits in a queue, oldest first; empties it."""

    def has(self, queue: str) -> bool:
        """Whether anything was made for a queue."""

    def connections(self) -> int:
        """How many clients are connected, this one not counted."""

    def full(self) -> AbstractContextManager[None]:
        """For the length of a block, the server has no memory for another message."""

    def frozen(self) -> AbstractContextManager[None]:
        """For the length of a block, the server does nothing."""

    def disconnect(self) -> None:
        """Close every connection from the server's side."""

    def forbid(self) -> AbstractContextManager[str]:
        """The URL of a user who may publish to celery, and not to the private destination."""

    def to_private(self) -> dict[str, Any]:
        """The columns of a message for that destination."""

    def oversize(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The columns of a message that is larger than this broker can take."""


class OnRabbitMQ:
    """A virtual host of the node that the tests of this process share."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._broker: Broker = request.getfixturevalue("broker")
        self._broker.declare("celery")
        self.url = self._broker.url
        self.password = self._broker.node.password

    def arrived(self, queue: str = "celery") -> list[str]:
        return [each.properties["correlation_id"] for each in self._broker.take_all(queue)]

    def has(self, queue: str) -> bool:
        return self._broker.has(queue)

    def connections(self) -> int:
        listed = self._broker.node.ctl("list_connections", "-q", "vhost", "pid")
        return sum(line.startswith(f"{self._broker.vhost}\t") for line in listed.splitlines())

    @contextmanager
    def full(self) -> Iterator[None]:
        self._broker.node.ctl("set_vm_memory_high_watermark", "0.0000001")
        try:
            yield
        finally:
            self._broker.node.ctl("set_vm_memory_high_watermark", "0.4")

    def frozen(self) -> AbstractContextManager[None]:
        return self._broker.node.frozen()

    def disconnect(self) -> None:
        self._broker.node.ctl("close_all_connections", "--vhost", self._broker.vhost, "by a test")

    @contextmanager
    def forbid(self) -> Iterator[str]:
        self._broker.ctl("set_permissions", "outbox", ".*", r"^(celery|amq\.default)$", ".*")
        try:
            yield self.url
        finally:
            self._broker.ctl("set_permissions", "outbox", ".*", ".*", ".*")

    def to_private(self) -> dict[str, Any]:
        return {"exchange": "amq.fanout", "mandatory": False}

    def oversize(self, _: pytest.MonkeyPatch) -> dict[str, Any]:
        """All headers must fit into one frame, of 128 KiB."""
        return {"headers": json.dumps({"x": "y" * 200_000})}


class OnRedis:
    """A Valkey of the test's own."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._server: Valkey = request.getfixturevalue("own_valkey")()
        self.url = self._server.url
        self.password = self._server.password

    def arrived(self, queue: str = "celery") -> list[str]:
        with self._client() as client:
            taken = [*client.lrange(queue, 0, -1)][::-1]
            client.delete(queue)
        return [json.loads(each)["properties"]["correlation_id"] for each in taken]

    def has(self, queue: str) -> bool:
        with self._client() as client:
            return any(queue in key.decode() for key in client.keys("*"))

    def connections(self) -> int:
        with self._client() as client:
            return len(client.client_list(_type="normal")) - 1

    @contextmanager
    def full(self) -> Iterator[None]:
        with self._client() as client:
            client.config_set("maxmemory", "1")
            try:
                yield
            finally:
                client.config_set("maxmemory", "0")

    def frozen(self) -> AbstractContextManager[None]:
        return self._server.frozen()

    def disconnect(self) -> None:
        with self._client() as client:
            client.client_kill_filter(_type="normal", skipme=True)

    @contextmanager
    def forbid(self) -> Iterator[str]:
        with self._client() as client:
            keys = ["celery", "outbox-relay.*"]
            client.acl_setuser("relay", enabled=True, passwords=["+secret"], keys=keys)
            client.execute_command("ACL", "SETUSER", "relay", "+@all")
            yield f"redis://relay:secret@127.0.0.1:{self._server.port}/0"

    def to_private(self) -> dict[str, Any]:
        return {"routing_key": PRIVATE}

    def oversize(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The limit is half a gigabyte, which no test has to send."""
        monkeypatch.setattr(envelope, "MAX_VALUE_BYTES", 100_000)
        return {"body": bytes(100_000)}

    def _client(self) -> Any:
        return redis.Redis.from_url(self._server.url)


#: By the names of the registry.
KINDS: Final[dict[str, Callable[[pytest.FixtureRequest], Kind]]] = {
    "RabbitMQ": OnRabbitMQ,
    "Redis": OnRedis,
}
