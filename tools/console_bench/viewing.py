"""What people who watch the console cost, as CPU time of Postgres and of the console."""

import itertools
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread

import httpx

from bench.cpu import spent
from console_bench.serving import served
from servers import Postgres
from servers.processes import family


def viewers(url: str, server: Postgres, count: int, seconds: float) -> None:
    """Print what the console costs, as CPU time of Postgres, with nobody and with many watching.

    Each watches the overview, and opens one page a minute.
    """
    print(f"\n{'who watches':28}{'Postgres':>12}{'console':>12}   CPU, ms a second")
    before = spent(server.process.pid)
    time.sleep(seconds)
    idle = (spent(server.process.pid) - before) / seconds
    for watching in (1, count):
        with served(url) as address, ExitStack() as stack:
            (console,) = [pid for pid in family(os.getpid()) if "outbox-console" in _command(pid)]
            ended = Event()
            for number in range(watching):
                start = 60 * number / watching
                threads = [
                    Thread(target=_watch, args=(address, ended)),
                    Thread(target=_open, args=(address, ended, start)),
                ]
                for thread in threads:
                    thread.start()
                    stack.callback(thread.join)
            stack.callback(ended.set)
            time.sleep(5)
            begun, own, began = spent(server.process.pid), spent(console), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            postgres = (spent(server.process.pid) - begun) / took - idle
            own = (spent(console) - own) / took
            print(f"{watching:<28}{postgres * 1000:12.1f}{own * 1000:12.1f}", flush=True)
            ended.set()


def _watch(address: str, ended: Event) -> None:
    with httpx.Client(base_url=address, timeout=30) as client:
        while not ended.is_set():
            with suppress(httpx.TransportError), client.stream("GET", "/events") as stream:
                for _ in stream.iter_lines():
                    if ended.is_set():
                        return
            ended.wait(0.5)


def _open(address: str, ended: Event, start: float) -> None:
    paths = ("/messages?state=pending", "/failures", "/routes", "/messages?state=dead")
    ended.wait(start)
    with httpx.Client(base_url=address, timeout=30) as client:
        for number in itertools.count():
            if ended.is_set():
                return
            with suppress(httpx.TransportError):
                client.get(paths[number % len(paths)])
            ended.wait(60)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
