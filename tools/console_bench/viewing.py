"""People who watch the console: each has the overview open, and opens a page a minute."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from typing import Final

import httpx

from bench.instruments.cpu import spent
from console_bench.serving import served
from servers import Postgres

#: Seconds for a page, and for the first figures.
_PATIENCE: Final = 30
#: Seconds from one page that somebody opens to the next.
_MINUTE: Final = 60
_PAGES: Final = ("/messages?state=pending", "/failures", "/routes", "/messages?state=dead")


@contextmanager
def watched(address: str, count: int) -> Iterator[None]:
    """So many people watch for the length of the block, each with figures before it begins."""
    ended, seen = Event(), [Event() for _ in range(count)]
    with ThreadPoolExecutor(max(2 * count, 1)) as threads:
        try:
            for number, event in enumerate(seen):
                threads.submit(_watch, address, ended, event)
                threads.submit(_open, address, ended, _MINUTE * number / count)
            for event in seen:
                if not event.wait(_PATIENCE):
                    raise RuntimeError(f"the console at {address} tells nothing")
            yield
        finally:
            ended.set()


def cost(url: str, server: Postgres, count: int, seconds: float) -> None:
    """Print the CPU time of Postgres and of the console, with one and with many watching."""
    print(f"\n{'who watches':28}{'Postgres':>12}{'console':>12}   CPU, ms a second")
    before = spent(server.process.pid)
    time.sleep(seconds)  # nothing to wait for: this is the time that is measured
    idle = (spent(server.process.pid) - before) / seconds
    for watching in (1, count):
        with served(url, server.folder) as console, watched(console.address, watching):
            begun, own, began = spent(server.process.pid), spent(console.pid), time.monotonic()
            time.sleep(seconds)  # as above
            took = time.monotonic() - began
            postgres = (spent(server.process.pid) - begun) / took - idle
            own = (spent(console.pid) - own) / took
            print(f"{watching:<28}{postgres * 1000:12.1f}{own * 1000:12.1f}", flush=True)


def _watch(address: str, ended: Event, seen: Event) -> None:
    with httpx.Client(base_url=address, timeout=_PATIENCE) as client:
        while not ended.is_set():
            with suppress(httpx.TransportError), client.stream("GET", "/events") as stream:
                for _ in stream.iter_lines():
                    seen.set()
                    if ended.is_set():
                        return
            ended.wait(0.5)


def _open(address: str, ended: Event, start: float) -> None:
    ended.wait(start)
    with httpx.Client(base_url=address, timeout=_PATIENCE) as client:
        for page in itertools.cycle(_PAGES):
            if ended.is_set():
                return
            with suppress(httpx.TransportError):
                client.get(page)
            ended.wait(_MINUTE)
