"""A consumer that notes when each message arrives. Run as `python -m bench.programs.consumer`.

It prints `ready`, consumes until standard input closes, and then prints {message id: time} as JSON;
times are the machine's, in seconds, and can be compared with those of other processes.
"""

import json
import os
import select
import sys
from time import time
from typing import Any, Final

from kombu import Connection

from bench.programs.child import first_line, started

#: Named by the environment, as arguments are for everybody to see.
URL: Final = "BENCH_URL"
QUEUE: Final = "BENCH_QUEUE"


class Consumer:
    """A consumer in a process of its own, started and ready."""

    def __init__(self, url: str, queue: str) -> None:
        self._process = started(__name__, **{URL: url, QUEUE: queue})
        first_line(self._process)

    def arrivals(self) -> dict[str, float]:
        """End it; when each message arrived."""
        printed, _ = self._process.communicate(timeout=30)
        found: dict[str, float] = json.loads(printed)
        return found

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        self._process.kill()
        self._process.communicate()


def _consume(url: str, queue: str) -> dict[str, float]:
    arrivals: dict[str, float] = {}

    def note(message: Any) -> None:
        arrivals[message.properties["correlation_id"]] = time()

    with Connection(url) as connection:
        channel: Any = connection.default_channel
        channel.basic_consume(queue, no_ack=True, callback=note)
        print("ready", flush=True)
        while sys.stdin not in select.select([sys.stdin], [], [], 0)[0]:
            try:
                connection.drain_events(timeout=0.1)
            except TimeoutError:
                continue
    return arrivals


if __name__ == "__main__":
    print(json.dumps(_consume(os.environ[URL], os.environ[QUEUE])))
