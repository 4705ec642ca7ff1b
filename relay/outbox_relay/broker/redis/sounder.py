"""How many messages are ready in queues of a Redis, and how full it is: LLEN, and INFO."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from outbox_relay.broker.redis.connect import open_server
from outbox_relay.broker.redis.depth import length_of, lists_of
from outbox_relay.broker.sounder import Told
from outbox_relay.core.memory import Used
from outbox_relay.errors import BrokerLost

#: Under another policy a full server makes room by itself, and is meant to be full.
REFUSES: Final = "noeviction"


class RedisSounder:
    """A connection to ask on. Raises BrokerLost where it cannot be opened, or breaks."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._server = open_server(url, options)

    def read(self, queues: Iterable[str]) -> Told:
        """Of every queue, at one moment."""
        channel = self._server.channel
        lists = {queue: lists_of(channel, queue) for queue in queues}
        client: Any = Redis(connection_pool=channel.pool)
        pipeline = client.pipeline(transaction=True)
        for keys in lists.values():
            for key in keys:
                pipeline.llen(key)
        try:
            lengths = iter(pipeline.execute(raise_on_error=False))
            ready = {
                queue: sum(length_of(next(lengths)) for _ in keys) for queue, keys in lists.items()
            }
        except (OSError, RedisError) as error:
            raise BrokerLost(f"the broker did not answer: {error}") from error
        return Told(ready)

    def memory(self) -> Used:
        """Of a server that refuses writes once it is full."""
        client: Any = Redis(connection_pool=self._server.channel.pool)
        try:
            return used_of(client.info("memory"))
        except ResponseError as error:  # an ACL forbids it, or the provider does
            return Used(why=f"INFO memory: {error}")
        except (OSError, RedisError) as error:
            raise BrokerLost(f"the broker did not answer: {error}") from error

    def close(self) -> None:
        """Drop the connection."""
        self._server.close()


def used_of(info: Mapping[str, Any]) -> Used:
    """What INFO tells of it, without what the server does not count: buffers for slow replicas."""
    if "used_memory" not in info or "maxmemory" not in info:
        return Used(why="INFO memory tells no maxmemory")
    if info.get("maxmemory_policy", REFUSES) != REFUSES:
        return Used()
    uncounted = int(info.get("mem_not_counted_for_evict", 0))
    return Used(max(0, int(info["used_memory"]) - uncounted), int(info["maxmemory"]))
