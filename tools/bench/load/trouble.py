"""Trouble beside ordinary messages: routes that take nothing, and rows that cannot be promoted.

A full queue, an exchange that is forbidden, a known queue that stops answering, and one that never
answers its declaration. Each has a backlog and gets more messages every second; and every minute a
scheduled row becomes due that cannot become ready.
"""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from kombu import Connection, Exchange, Queue

from bench.lab import Lab
from servers import RabbitMQ

#: Seconds between two portions for each of them, how many messages these are, and after how many
#: portions a scheduled row is spoiled.
PAUSE: Final = 1.0
PORTION: Final = 5
SPOIL_EVERY: Final = 60
#: How long the last portion may take, in seconds.
DEADLINE: Final = 60.0

FULL: Final = "full"
FORBIDDEN: Final = "forbidden"
FROZEN: Final = "frozen"
HANGING: Final = "hanging"

INSERT: Final = """
INSERT INTO outbox.message
    (message_id, task, exchange, routing_key, body, content_type, content_encoding, declare)
SELECT gen_random_uuid()::text, 'bench.task', %(exchange)s, %(queue)s, '[]', 'application/json',
       'utf-8', %(declare)s::json
FROM generate_series(1, %(rows)s)
"""
#: No lane takes this key; the insert would have refused it.
SPOIL: Final = """
WITH made AS (
    INSERT INTO outbox.message
        (message_id, task, body, content_type, content_encoding, available_at)
    VALUES ('spoiled', 'bench.task', '[]', 'application/json', 'utf-8', now() + interval '1 hour')
    RETURNING id)
SELECT id FROM made
"""
DUE: Final = "UPDATE outbox.parked SET lane = '', available_at = now() WHERE id = %s"

_FIND: Final = (
    '{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{name}">>)), '
    "P = amqqueue:get_pid(Q), sys:{what}(P)"
)


@dataclass(frozen=True, slots=True)
class _Route:
    """A place that takes nothing."""

    queue: str
    exchange: str = ""
    declared: bool = False

    def row(self, rows: int) -> dict[str, object]:
        """The parameters of INSERT."""
        entity = {"kind": "queue", "name": self.queue, "routing_key": self.queue}
        declare = json.dumps([entity] if self.declared else [])
        return {"exchange": self.exchange, "queue": self.queue, "declare": declare, "rows": rows}


ROUTES: Final = (
    _Route(FULL),
    _Route(FORBIDDEN, exchange=FORBIDDEN),
    _Route(FROZEN),
    _Route(HANGING, declared=True),
)


@contextmanager
def trouble(lab: Lab, node: RabbitMQ, vhost: str, backlog: int) -> Iterator[None]:
    """Within the block all of it is there, `backlog` messages for each of the routes.

    Raises what kept the messages from coming.
    """
    with ExitStack() as stack:
        _make_routes(node, vhost, stack)
        for route in ROUTES:
            lab.admin.execute(INSERT.encode(), route.row(backlog))
        ending, pool = threading.Event(), ThreadPoolExecutor(1)
        feeding = pool.submit(_feed, lab.database_url, ending)
        stack.callback(pool.shutdown, wait=False)
        stack.callback(feeding.result, DEADLINE)
        stack.callback(ending.set)
        yield


def _make_routes(node: RabbitMQ, vhost: str, stack: ExitStack) -> None:
    with Connection(node.url(vhost)) as connection:
        channel: Any = connection.default_channel
        narrow = {"x-max-length": 1, "x-overflow": "reject-publish"}
        Queue(FULL, queue_arguments=narrow)(channel).declare()
        Queue(FORBIDDEN, Exchange(FORBIDDEN), FORBIDDEN)(channel).declare()
        for name in (FROZEN, HANGING):
            Queue(name)(channel).declare()
    for name in (FROZEN, HANGING):
        node.evaluate(_FIND.format(vhost=vhost, name=name, what="suspend"))
        stack.callback(node.evaluate, _FIND.format(vhost=vhost, name=name, what="resume"))
    node.permit(vhost, f"^(?!{FORBIDDEN}$)")
    stack.callback(node.permit, vhost)


def _feed(database_url: str, ending: threading.Event) -> None:
    fed = 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        while not ending.wait(PAUSE):
            for route in ROUTES:
                connection.execute(INSERT.encode(), route.row(PORTION))
            if fed % SPOIL_EVERY == 0:
                connection.execute(DUE, connection.execute(SPOIL).fetchone())
            fed += 1
