"""How many messages are ready in queues of a Redis: the lengths of their lists."""

from collections.abc import Iterable
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from outbox_relay.broker.redis.connect import open_server
from outbox_relay.broker.redis.depth import length_of, lists_of
from outbox_relay.broker.sounder import Told
from outbox_relay.errors import BrokerLost


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

    def close(self) -> None:
        """Drop the connection."""
        self._server.close()
