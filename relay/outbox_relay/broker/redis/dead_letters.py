"""Dead letters of a Redis: lists that workers push to, read in place.

A letter leaves its list once it is home, by its very text: a relay that is killed before that
leaves it where it was, and finds it known the next time.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from outbox_relay.broker.redis.connect import open_server
from outbox_relay.core.dead_letter import DeadLetter, message_id_of, why
from outbox_relay.errors import BrokerLost


class RedisDeadLetters:
    """Implements `dead_letters.DeadLetters`."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._server = open_server(url, options)
        self._client: Any = Redis(connection_pool=self._server.channel.pool)
        self._left: dict[str, int] = {}  # read and not done, at the old end of each list

    def waiting(self, queue: str) -> int | None:
        """The length of the list; a list that is empty is not there."""
        try:
            return int(self._client.llen(self._key(queue))) or None
        except ResponseError:  # a key of another type, or no right to read it
            return None
        except (OSError, RedisError) as error:
            raise _lost(error) from error

    def read(self, queue: str, limit: int) -> Iterator[DeadLetter]:
        """The next at the old end, where nothing is pushed."""
        left = self._left.get(queue, 0)
        try:
            texts = self._client.lrange(self._key(queue), -left - limit, -left - 1)
        except (OSError, RedisError) as error:
            raise _lost(error) from error
        self._left[queue] = left + len(texts)
        for text in reversed(texts):
            yield _letter(queue, text)

    def done(self, letters: Sequence[DeadLetter]) -> None:
        """Remove each, found from the old end."""
        try:
            pipeline = self._client.pipeline(transaction=False)
            for letter in letters:
                pipeline.lrem(self._key(letter.queue), -1, letter.handle)
            pipeline.execute()
        except (OSError, RedisError) as error:
            raise _lost(error) from error
        for letter in letters:
            self._left[letter.queue] -= 1

    def may_look_again(self, _queue: str) -> bool:
        """A list is read in place."""
        return True

    def close(self) -> None:
        """Close the connections; every letter is where it was."""
        self._server.close()

    def _key(self, queue: str) -> str:
        return f"{self._server.channel.global_keyprefix}{queue}"


def _letter(queue: str, text: bytes) -> DeadLetter:
    try:
        envelope = json.loads(text)
        headers, properties = envelope.get("headers") or {}, envelope.get("properties") or {}
        kind, reason = why(headers)
        return DeadLetter(queue, message_id_of(headers, properties), kind, reason, text)
    except (ValueError, AttributeError):  # no message of kombu's
        return DeadLetter(queue, None, "unknown", "no message", text)


def _lost(error: Exception) -> BrokerLost:
    return BrokerLost(f"the broker did not answer: {error}")
