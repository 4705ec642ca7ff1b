"""Measures how long the console's pages take over a very full outbox: `make console-bench`.

Fills a private server with a million pending, a million dead and ten million sent messages (ARGS
"--millions 1" for a twelfth), asks for every page and search through HTTP, and prints the median
and the 95th percentile of each. With `--keep FOLDER` the filled server is kept there for another
run. `--viewers 10` measures the CPU time that those cost who watch instead, and `--beside 10` what
a relay and producers notice of them.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.__main__ import FOLDER
from bench.instruments import cpu
from console_bench.beside import beside
from console_bench.filling import SETTINGS, fill, places
from console_bench.serving import served
from console_bench.viewing import cost
from outbox_migrations import grant, upgrade
from servers import Postgres

#: Seconds a page may take at its 95th percentile; and a search, which may ask to be narrowed.
PAGE: Final = 0.3
NARROW: Final = 2.0

PAGES: Final = {
    "overview": "/",
    "pending": "/messages?state=pending",
    "pending, far down": "/messages?state=pending&after={pending}",
    "scheduled": "/messages?state=scheduled",
    "dead": "/messages?state=dead",
    "dead, far down": "/messages?state=dead&after={middle}",
    "sent": "/messages?state=sent",
    "sent, far down": "/messages?state=sent&after={middle}",
    "expired": "/messages?state=expired",
    "message": "/messages/{middle}",
    "message, dead": "/messages/{dead}",
    "message, pending": "/messages/{pending}",
    "find by id": "/find?id={message_id}",
    "failures": "/failures",
    "routes": "/routes",
    "workers": "/workers",
    "doctor": "/doctor",
    "actions": "/actions",
}
#: Answered, in whole or as far as was looked, or asked to be narrowed.
SEARCHES: Final = {
    "missing": "/messages?state=missing",
    "dead by task": "/messages?state=dead&task=shop.pay",
    "dead by reason": "/messages?state=dead&reason=NO_ROUTE",
    "dead by a rare reason": "/messages?state=dead&reason=6543214+is",
    "dead by queue and task": "/messages?state=dead&task=shop.pay&queue=queue-3",
    "dead by arguments": "/messages?state=dead&text=EUR",
    "dead by id": "/messages?state=dead&id={dead}",
    "sent by task": "/messages?state=sent&task=shop.mail",
    "sent by an unknown task": "/messages?state=sent&task=shop.nothing",
    "sent by time": "/messages?state=sent&since={yesterday}",
    "pending by queue": "/messages?state=pending&queue=queue-2",
    "pending by arguments, none": "/messages?state=pending&text=nowhere",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """How long a page took, in seconds, each time; and what it answered with."""

    name: str
    seconds: list[float]
    status: int

    @property
    def p95(self) -> float:
        """The 95th percentile."""
        return statistics.quantiles(self.seconds, n=20)[-1]

    def row(self, most: float) -> str:
        """A line of the table; what takes too long is marked."""
        mark = "" if self.p95 <= most else "  too long"
        median = statistics.median(self.seconds) * 1000
        told = "narrow your search" if self.status == 422 else str(self.status)
        return f"{self.name:28}{median:9.0f}{self.p95 * 1000:9.0f}  {told}{mark}"


def measure(address: str, paths: dict[str, str], times: int) -> Iterator[Figure]:
    """Each page so many times, one after another, and once before that."""
    with httpx.Client(base_url=address, timeout=30, follow_redirects=True) as client:
        for name, path in paths.items():
            seconds, status = [], client.get(path).status_code
            for _ in range(times):
                began = time.monotonic()
                status = client.get(path).status_code
                seconds.append(time.monotonic() - began)
            yield Figure(name, seconds, status)


def report(url: str, folder: Path, millions: float, times: int) -> bool:
    """Print the tables; whether everything was quick enough."""
    known = places(url, int(millions * 1_000_000))
    fine = True
    began, others = time.monotonic(), cpu.foreign()
    with served(url, folder) as console:
        for paths, most in ((PAGES, PAGE), (SEARCHES, NARROW)):
            filled = {name: path.format(**known) for name, path in paths.items()}
            print(f"{'page':28}{'p50, ms':>9}{'p95, ms':>9}  answer")
            for figure in measure(console.address, filled, times):
                fine &= figure.p95 <= most
                print(figure.row(most), flush=True)
    others = (cpu.foreign() - others) / (time.monotonic() - began)
    print(f"meanwhile others kept {others:.1f} of {os.cpu_count()} cores busy")
    return fine


def main() -> int:
    """Fill, measure, and discard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=12, help="of messages in all (12)")
    parser.add_argument("--times", type=int, default=20, help="that each page is asked for (20)")
    parser.add_argument("--keep", type=Path, help="keep the filled server in this folder")
    parser.add_argument("--viewers", type=int, help="measure what so many people cost instead")
    parser.add_argument("--beside", type=int, help="measure what is noticed of them instead")
    parser.add_argument("--rounds", type=int, default=9, help="of that comparison (9)")
    given = parser.parse_args()
    if given.beside:
        beside(given.beside, given.rounds, FOLDER)
        return 0
    folder = given.keep or Path(tempfile.mkdtemp(prefix="console-bench-"))
    is_new = not (folder / "filled").exists()
    folder.mkdir(parents=True, exist_ok=True)
    server = Postgres(folder, SETTINGS)
    server.start()
    try:
        if is_new:
            url = server.create_database("shop")
            upgrade(url)
            grant(url)
            fill(url, given.millions)
            (folder / "filled").touch()
        url = server.dsn("shop")
        if given.viewers:
            cost(url, server, given.viewers, 60)
            return 0
        return 0 if report(url, folder, given.millions, given.times) else 1
    finally:
        server.stop() if given.keep else server.discard()


if __name__ == "__main__":
    sys.exit(main())
