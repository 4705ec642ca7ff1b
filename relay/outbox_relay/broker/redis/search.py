"""Finds messages by their ids in a Redis: in the lists of queues, or with a worker, unacknowledged.

Workers take messages while it reads. What they take they note as unacknowledged, which is read
before the lists and after them: so a message that stays in Redis is found wherever it goes, unless
it goes both ways meanwhile. In a list it is never passed over: it is read from the end that grows.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from time import monotonic
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from outbox_relay.broker.redis.connect import open_server
from outbox_relay.broker.redis.depth import lists_of
from outbox_relay.core.dead_letter import DEAD, message_id_of
from outbox_relay.core.place import Bounds, Lying, Place, Search
from outbox_relay.errors import BrokerLost

#: How many messages are asked for at a time.
PORTION: Final = 500


def search(
    url: str,
    options: dict[str, Any],
    queues: Sequence[str],
    message_ids: Collection[str],
    bounds: Bounds,
) -> Search:
    """Where each lies that is found in these queues, their dead letters, or unacknowledged.

    Raises BrokerLost.
    """
    with closing(open_server(url, options)) as server:
        try:
            return _Reader(server.channel, frozenset(message_ids), bounds).search(queues)
        except (OSError, RedisError) as error:
            raise BrokerLost(f"the broker did not answer: {error}") from error


class _Reader:
    """Reads what it must, and remembers what it was looking for."""

    def __init__(self, channel: Any, wanted: frozenset[str], bounds: Bounds) -> None:
        self._channel, self._wanted = channel, wanted
        self._client: Any = Redis(connection_pool=channel.pool)
        self._most, self._read = bounds.messages, 0
        self._give_up = monotonic() + bounds.seconds
        self._readable = True
        self._found: dict[str, Lying] = {}

    def search(self, queues: Sequence[str]) -> Search:
        """Read all of them, within the bounds."""
        self._note(Lying(Place.UNACKNOWLEDGED), self._unacknowledged())
        for queue in queues:
            for key in lists_of(self._channel, queue):
                self._note(Lying(Place.QUEUE, queue), self._listed(key))
            dead = f"{queue}{DEAD}"
            self._note(Lying(Place.DEAD_LETTERS, dead), self._listed(self._key(dead)))
        self._note(Lying(Place.UNACKNOWLEDGED), self._unacknowledged())
        return Search(self._found, self._readable and self._may_read, self._read)

    @property
    def _may_read(self) -> bool:
        return self._read < self._most and monotonic() < self._give_up

    def _note(self, lying: Lying, envelopes: Iterator[Any]) -> None:
        for envelope in envelopes:
            self._read += 1
            message_id = _id_of(envelope)
            if message_id is not None and message_id in self._wanted:
                self._found[message_id] = lying

    def _listed(self, key: str) -> Iterator[Any]:
        """From the end at which messages come in: what moves is read again, not passed over."""
        place = 0
        while self._may_read:
            try:
                texts = self._client.lrange(key, place, place + PORTION - 1)
            except ResponseError:  # a key of another type, or no right to read it
                self._readable = False
                return
            yield from map(_decoded, texts)
            if len(texts) < PORTION:
                return
            place += PORTION

    def _unacknowledged(self) -> Iterator[Any]:
        """What all workers have at hand: kombu has it in one place for all queues of a server."""
        cursor = 0
        while self._may_read:
            try:
                key = self._key(self._channel.unacked_key)
                cursor, values = self._client.hscan(key, cursor, count=PORTION)
            except ResponseError:
                self._readable = False
                return
            for text in values.values():
                noted = _decoded(text)
                yield noted[0] if isinstance(noted, list) and noted else None
            if not cursor:
                return

    def _key(self, name: str) -> str:
        return f"{self._channel.global_keyprefix}{name}"


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # no message of kombu's
        return None


def _id_of(envelope: Any) -> str | None:
    if not isinstance(envelope, Mapping):
        return None
    headers, properties = envelope.get("headers"), envelope.get("properties")
    return message_id_of(
        headers if isinstance(headers, Mapping) else {},
        properties if isinstance(properties, Mapping) else {},
    )
