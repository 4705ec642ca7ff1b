"""What may happen to one route of RabbitMQ while the others are well.

Each fault has a queue of its own, takes hold of it, sees that others are sent meanwhile, and lets
go: what waited for the route is to arrive by itself, and is judged at the end.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import sleep
from typing import Final, LiteralString

from kombu import Connection, Exchange, Queue

from tests.faults.lab import DEADLINE, Lab
from tests.faults.queues import RabbitQueue
from tests.fixtures.broker import frozen_queue
from tests.fixtures.waiting import wait_until

#: Rows for a route that is struck, and how many of them a full queue has room for.
ROWS: Final = 60
ROOM: Final = 10
_POLICY: Final = '{"max-length": %d, "overflow": "reject-publish"}'
_WAITING: Final[LiteralString] = (
    "SELECT 1 FROM outbox.parked WHERE starts_with(route, %s || chr(31)) AND route LIKE %s LIMIT 1"
)
_HIGHEST: Final[LiteralString] = "SELECT coalesce(max(id), 0) FROM outbox.message"
_SENT_SINCE: Final[LiteralString] = """
SELECT count(*) FILTER (WHERE routing_key = 'celery'), count(*) FILTER (WHERE routing_key = %s)
FROM outbox.sent WHERE id > %s
"""


class RouteFaults:
    """A queue for each fault that has struck, and how each is made to strike."""

    def __init__(self, lab: Lab, queue: RabbitQueue, last: Callable[[], float]) -> None:
        """`last` says for how many seconds the next fault lasts."""
        self._lab, self._broker, self._last = lab, queue.broker, last
        self.queues: list[str] = []
        self.faults: dict[str, Callable[[], None]] = {
            "queue full": self._fill,
            "exchange forbidden": self._forbid,
            "queue frozen": self._freeze,
            "declaration hanging": self._hang,
        }

    def _fill(self) -> None:
        name = self._new_queue("full")
        self._broker.declare(name)
        with self._narrow(name):
            self._lab.commit(ROWS, routing_key=name, declare="[]")
            self._wait_until_held("", name)
            sleep(self._last())

    def _forbid(self) -> None:
        name = self._new_queue("forbidden")
        with Connection(self._lab.queue.url) as connection:
            Queue(name, Exchange(name, "direct"), name)(connection.default_channel).declare()
        with self._forbidden(name):
            self._lab.commit(ROWS, exchange=name, routing_key=name, declare="[]")
            self._wait_until_held(name, name)
            sleep(self._last())

    def _freeze(self) -> None:
        """The relay knows the queue, and publishes to it unasked."""
        name = self._new_queue("frozen")
        self._commit_declared(name, 1)
        wait_until(lambda: self._sent_since(0, name)[1] == 1, DEADLINE, "a queue that works")
        self._go_on_without(name, frozen_queue(self._broker, name))

    def _hang(self) -> None:
        """The relay does not know it, and asks for it in vain."""
        name = self._new_queue("hanging")
        self._broker.declare(name)
        self._go_on_without(name, frozen_queue(self._broker, name))

    def _go_on_without(self, name: str, fault: AbstractContextManager[None]) -> None:
        """While a queue answers nobody, other messages are sent, and none of its own."""
        with fault:
            [(after,)] = self._lab.run(_HIGHEST)
            self._commit_declared(name, ROWS)
            wait_until(lambda: self._sent_since(after, name)[0] > 0, DEADLINE, "others sent")
            sleep(self._last())
            assert self._sent_since(after, name)[1] == 0, f"{name} is not frozen"

    def _new_queue(self, kind: str) -> str:
        self.queues.append(f"{kind}{len(self.queues)}")
        return self.queues[-1]

    def _commit_declared(self, name: str, count: int) -> None:
        declared = json.dumps([{"kind": "queue", "name": name, "routing_key": name}])
        self._lab.commit(count, routing_key=name, declare=declared)

    def _sent_since(self, after: int, name: str) -> tuple[int, int]:
        """Later messages that are sent: to the ordinary queue, and to this one."""
        [(others, own)] = self._lab.run(_SENT_SINCE, name, after)
        return others, own

    def _wait_until_held(self, exchange: str, routing_key: str) -> None:
        def held() -> bool:
            return bool(self._lab.run(_WAITING, exchange, f"%{routing_key}"))

        wait_until(held, DEADLINE, f"messages that wait for {routing_key}")

    @contextmanager
    def _narrow(self, name: str) -> Iterator[None]:
        """A queue that refuses what it has no room for."""
        self._broker.ctl("set_policy", name, f"^{name}$", _POLICY % ROOM, "--apply-to", "queues")
        try:
            yield
        finally:
            self._broker.ctl("clear_policy", name)

    @contextmanager
    def _forbidden(self, exchange: str) -> Iterator[None]:
        """Nobody may publish to an exchange; a channel remembers what it may, not what not."""
        node, vhost = self._broker.node, self._broker.vhost
        node.permit(vhost, f"^(?!{exchange}$)")
        try:
            yield
        finally:
            node.permit(vhost)
