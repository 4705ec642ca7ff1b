"""How many messages wait in the lists of a queue, and whether anybody can be popping them.

Redis knows which clients wait in BRPOP, not for which lists. But a client that waits while a list
has messages does not pop that list: where every popping client waits, nobody does. Workers that
are busy do not wait, so that several looks are taken, each at one moment of the server.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from outbox_relay.broker.redis.connect import open_server
from outbox_relay.core.depth import Depth, judge
from outbox_relay.core.finding import Finding, Level
from outbox_relay.errors import BrokerLost

#: kombu's workers begin to wait anew every second: one of these looks finds them waiting.
LOOKS: Final = 6
PAUSE: Final = 0.2
#: kombu orders messages of a queue by these, and keeps those of a few steps in a list each.
PRIORITIES: Final = range(10)
BINDINGS: Final = "_kombu.binding."
BETWEEN: Final = "\x06\x16"
#: The most rounds of SCAN through the keys of a server.
SCANS: Final = 50


@dataclass(frozen=True, slots=True)
class Look:
    """One moment: messages by queue, clients that pop lists, and how many of those wait."""

    messages: dict[str, int]
    popping: int
    waiting: int

    def nobody_takes(self, queue: str) -> bool:
        """Whether it is certain that no client takes messages of a queue now."""
        return self.popping == 0 or (self.messages[queue] > 0 and self.popping == self.waiting)


def depths(url: str, options: dict[str, Any], queues: Sequence[str]) -> list[Depth]:
    """Messages in every list of each queue. Raises BrokerLost."""
    with closing(open_server(url, options)) as server:
        try:
            return [depth for depth, _ in _looks(server.channel, queues)]
        except (OSError, RedisError) as error:
            raise BrokerLost(f"the broker did not answer: {error}") from error


def check(channel: Any, queues: Sequence[str]) -> list[Finding]:
    """A finding on each queue; where nobody takes its messages, what else workers listen to."""
    return [_judged(channel, depth, popping) for depth, popping in _looks(channel, queues)]


def _judged(channel: Any, depth: Depth, popping: int) -> Finding:
    if not popping:
        return judge(depth, why=": no client of this server pops any list")
    found = judge(depth, why=f": all {popping} client(s) that pop lists wait for others")
    if found.level is Level.OK:
        return found
    elsewhere = _prefixes(channel, depth.queue)
    told = (
        f"; workers know this queue under global_keyprefix {', '.join(map(repr, elsewhere))}, "
        f"this relay uses {channel.global_keyprefix!r}"
        if elsewhere
        else ""
    )
    return judge(
        depth,
        why=f": all {popping} client(s) that pop lists wait for others{told}",
        advice="; global_keyprefix, priority_steps and sep of the workers' "
        "broker_transport_options belong in OUTBOX_BROKER_TRANSPORT_OPTIONS as well",
    )


def _looks(channel: Any, queues: Sequence[str]) -> list[tuple[Depth, int]]:
    """Each queue with the number of clients that pop lists; consumers None where unknown."""
    if not queues:
        return []
    client: Any = Redis(connection_pool=channel.pool)
    lists = {queue: lists_of(channel, queue) for queue in queues}
    last = _look(client, lists)
    untaken: set[str] = set()
    for _ in range(LOOKS):
        untaken |= {queue for queue in queues if last.nobody_takes(queue)}
        if all(queue in untaken or not last.messages[queue] for queue in queues):
            break
        time.sleep(PAUSE)
        last = _look(client, lists)
    return [
        (Depth(queue, last.messages[queue], 0 if queue in untaken else None), last.popping)
        for queue in queues
    ]


def _look(client: Any, lists: dict[str, list[str]]) -> Look:
    pipeline = client.pipeline(transaction=True)
    for keys in lists.values():
        for key in keys:
            pipeline.llen(key)
    pipeline.client_list()
    *lengths, clients = pipeline.execute(raise_on_error=False)
    each = iter(lengths)
    messages = {queue: sum(length_of(next(each)) for _ in keys) for queue, keys in lists.items()}
    if isinstance(clients, Exception):  # an ACL forbids it: somebody may be popping
        return Look(messages, popping=1, waiting=0)
    popping = [each for each in clients if each.get("cmd") in ("brpop", "blpop", "blmove")]
    return Look(messages, len(popping), sum("b" in each["flags"] for each in popping))


def length_of(answer: int | Exception) -> int:
    """The length of a list, as the server answered."""
    if isinstance(answer, ResponseError):  # a key of another type, which nothing can be put in
        return 0
    if isinstance(answer, Exception):
        raise answer
    return answer


def lists_of(channel: Any, queue: str) -> list[str]:
    """The keys of a queue's lists, one for each step of priority."""
    steps = dict.fromkeys(channel.priority(priority) for priority in PRIORITIES)
    names = (f"{queue}{channel.sep}{step}" if step else queue for step in steps)
    return [f"{channel.global_keyprefix}{name}" for name in names]


def _prefixes(channel: Any, queue: str) -> list[str]:
    """The other prefixes under which somebody has bound a queue of this name."""
    client: Any = Redis(connection_pool=channel.pool)
    found: set[str] = set()
    cursor = 0
    for _ in range(SCANS):
        cursor, keys = client.scan(cursor, match=f"*{BINDINGS}*", count=1000)
        for key in map(_text, keys):
            members = map(_text, client.smembers(key))
            if any(member.split(BETWEEN)[-1] == queue for member in members):
                found.add(key.partition(BINDINGS)[0])
        if not cursor:
            break
    return sorted(found - {channel.global_keyprefix})


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
