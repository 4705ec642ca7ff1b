"""Measures how long the console's pages take over a very full outbox: `make console-bench`.

Fills a private server with a million pending, a million dead and ten million sent messages (ARGS
"--millions 1" for a tenth), asks for every page and search through HTTP, and prints the median and
the 95th percentile of each. With `--keep FOLDER` the filled server is kept there for another run.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Final

import httpx
import psycopg

from bench.cpu import spent
from outbox_migrations import grant, upgrade
from servers import Postgres
from servers.ports import free_port
from servers.processes import family

#: Seconds a page may take at its 95th percentile; and a search, which may ask to be narrowed after
#: the two that its statement has.
PAGE: Final = 0.3
NARROW: Final = 2.2

#: As rows of an application that has run for a week; every eleventh is dead, the last are pending.
MESSAGES: Final = """
INSERT INTO outbox.message (id, slot, message_id, task, exchange, routing_key, headers, properties,
                            body, content_type, content_encoding, created_at)
OVERRIDING SYSTEM VALUE
SELECT i, (i * 15 / %(all)s) %% 16, gen_random_uuid()::text,
       'shop.' || (ARRAY['invoice', 'mail', 'stock', 'pay', 'audit'])[1 + i %% 5],
       '', 'queue-' || i %% 7,
       json_build_object('lang', 'py', 'task', 'shop.invoice', 'root_id', gen_random_uuid(),
           'parent_id', NULL, 'argsrepr', format('(%%s, ''EUR'')', i), 'kwargsrepr', '{}',
           'origin', 'gen4711@web-7', 'retries', 0, 'timelimit', '[null, null]'),
       '{"delivery_mode": 2, "priority": 0, "correlation_id": "0b5c9f4e"}',
       convert_to(format('[[%%s, "EUR"], {}, {"callbacks": null, "errbacks": null}]', i), 'utf8'),
       'application/json', 'utf-8',
       now() - interval '7 days' * (%(all)s - i)::float8 / %(all)s
  FROM generate_series(%(from)s::bigint, %(until)s::bigint) AS i
"""
DEAD: Final = """
INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)
SELECT id, slot, 'dead', created_at, 10,
       (ARRAY['312 NO_ROUTE: no queue takes it', 'message size ' || id || ' is larger than 16 MiB',
              '406 PRECONDITION_FAILED'])[1 + id %% 3]
  FROM outbox.message WHERE id BETWEEN %(from)s AND %(until)s AND id %% 11 = 0
   AND id <= %(settled)s
"""
PENDING: Final = """
INSERT INTO outbox.ready (id, slot) SELECT id, slot FROM outbox.message
 WHERE id BETWEEN %(from)s AND %(until)s AND id > %(settled)s
"""
SENT: Final = """
INSERT INTO outbox.receipt (span, ids, sent_at)
SELECT int8range(min(id), max(id), '[]'), array_agg(id ORDER BY id),
       max(created_at) + interval '20 ms'
  FROM outbox.message WHERE id BETWEEN %(from)s AND %(until)s AND id %% 11 <> 0
   AND id <= %(settled)s
 GROUP BY id / 500
"""
#: Of what was confirmed last workers have told; but for one in a hundred thousand.
DONE: Final = """
INSERT INTO inbox.receipt (message_id, task, outcome, worker, received_at, finished_at)
SELECT message_id, task, 'succeeded', 'celery@a', created_at, created_at FROM outbox.message
 WHERE id BETWEEN %(from)s AND %(until)s AND id %% 11 <> 0 AND id <= %(settled)s
   AND id > %(settled)s * 0.8 AND id %% 100003 <> 0
"""
WATCHED: Final = """
INSERT INTO inbox.watched (task, since)
SELECT DISTINCT 'shop.' || t, now() - interval '2 days'
  FROM unnest(ARRAY['invoice', 'mail', 'stock', 'pay', 'audit']) t
"""
SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "shared_buffers": "512MB",
}
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


def fill(url: str, millions: float) -> None:
    """Make the messages, half a million at a time, without the trigger that makes their work."""
    total, step = int(millions * 1_000_000), 500_000
    values = {"all": total, "settled": total * 11 // 12}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE outbox.message DISABLE TRIGGER make_work")
        for begin in range(1, total + 1, step):
            portion = {**values, "from": begin, "until": min(begin + step - 1, total)}
            for statement in (MESSAGES, DEAD, PENDING, SENT, DONE):
                connection.execute(statement, portion)
            print(f"{portion['until']:,} messages", file=sys.stderr, flush=True)
        connection.execute(WATCHED)
        connection.execute("ALTER TABLE outbox.message ENABLE ALWAYS TRIGGER make_work")
        connection.execute("SELECT setval('outbox.message_id_seq', %s)", [total])
        connection.execute("VACUUM ANALYZE")


@contextmanager
def served(url: str) -> Iterator[str]:
    """The address of a console, a process of its own."""
    address = f"127.0.0.1:{free_port()}"
    command = [str(Path(sys.executable).with_name("outbox-console")), "--address", address]
    command += ["--database-url", url, "--role", "operator-with-payload"]
    console = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"http://{address}"
    finally:
        console.terminate()
        console.wait(20)


def measure(address: str, paths: dict[str, str], times: int) -> Iterator[Figure]:
    """Each page so many times, one after another, and once before that."""
    with httpx.Client(base_url=address, timeout=30, follow_redirects=True) as client:
        for _ in range(100):
            try:
                client.get("/")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        for name, path in paths.items():
            seconds, status = [], client.get(path).status_code
            for _ in range(times):
                began = time.monotonic()
                status = client.get(path).status_code
                seconds.append(time.monotonic() - began)
            yield Figure(name, seconds, status)


def places(url: str, total: int) -> dict[str, object]:
    """What the addresses of pages are filled in with."""
    middle = total // 2
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT message_id, (now() - interval '1 day')::text FROM outbox.message WHERE id = %s",
            [middle],
        ).fetchall()
    message_id, yesterday = found[0]
    pending, dead = total - total // 24, middle // 11 * 11
    return {
        "middle": middle, "pending": pending, "dead": dead, "message_id": message_id,
        "yesterday": str(yesterday)[:19],
    }  # fmt: skip


def report(url: str, millions: float, times: int) -> bool:
    """Print the tables; whether everything was quick enough."""
    known = places(url, int(millions * 1_000_000))
    fine = True
    with served(url) as address:
        for paths, most in ((PAGES, PAGE), (SEARCHES, NARROW)):
            filled = {name: path.format(**known) for name, path in paths.items()}
            print(f"{'page':28}{'p50, ms':>9}{'p95, ms':>9}  answer")
            for figure in measure(address, filled, times):
                fine &= figure.p95 <= most
                print(figure.row(most), flush=True)
    return fine


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


def main() -> int:
    """Fill, measure, and discard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=12, help="of messages in all (12)")
    parser.add_argument("--times", type=int, default=20, help="that each page is asked for (20)")
    parser.add_argument("--keep", type=Path, help="keep the filled server in this folder")
    parser.add_argument("--viewers", type=int, help="measure what so many people cost instead")
    given = parser.parse_args()
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
            viewers(url, server, given.viewers, 60)
            return 0
        return 0 if report(url, given.millions, given.times) else 1
    finally:
        server.stop() if given.keep else server.discard()


if __name__ == "__main__":
    sys.exit(main())
