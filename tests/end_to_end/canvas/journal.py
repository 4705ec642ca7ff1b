"""What the tasks of one line note down, in Redis, and whether any of its messages is left."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from redis import Redis

from tests.fixtures.waiting import wait_until

#: For a worker to store the state of an attempt, from when its retry() was sent.
_STORE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Note:
    """That a task ran: once for each attempt."""

    label: str
    attempt: int
    got: Any
    gave: Any
    task_id: str | None
    stamps: dict[str, Any]


class Journal:
    """Of the sender and its worker together."""

    def __init__(self, url: str, line: str) -> None:
        self._redis: Any = Redis.from_url(url, decode_responses=True)
        self._key = f"canvas:{line}"

    def write(self, run: str, note: Note) -> None:
        """Add to the notes of a run, which has a name of its own for each shape that is sent."""
        self._redis.rpush(f"{self._key}:run:{run}", json.dumps(asdict(note)))

    def read(self, run: str) -> list[Note]:
        """Return the notes of a run, oldest first."""
        entries = self._redis.lrange(f"{self._key}:run:{run}", 0, -1)
        return [Note(**json.loads(entry)) for entry in entries]

    def sent(self, count: int = 1) -> None:
        """Messages are about to be sent: said before a worker can have them."""
        self._redis.incrby(f"{self._key}:sent", count)

    def done(self) -> None:
        """A task has ended, and has sent what it had to send."""
        self._redis.incr(f"{self._key}:done")

    def stored(self, task_id: str, attempt: int) -> None:
        """The state of an attempt that is to be retried is in the result backend."""
        self._redis.sadd(f"{self._key}:stored", f"{task_id} {attempt}")

    def await_stored(self, task_id: str, attempt: int) -> None:
        """Wait for that."""
        key, member = f"{self._key}:stored", f"{task_id} {attempt}"
        what = f"the state of {member}"
        wait_until(lambda: self._redis.sismember(key, member), _STORE_SECONDS, what)

    def at_rest(self) -> bool:
        """Whether every message that was sent has been run. Duplicates count once more."""
        done = int(self._redis.get(f"{self._key}:done") or 0)  # asked first: both only grow
        return done >= int(self._redis.get(f"{self._key}:sent") or 0)
