"""`python -m celery_suite SUITE BROKER [pytest's options]`: run it plain and through the outbox.

BROKER is rabbitmq or redis. What each run said is kept beside the suite, `BROKER-plain.log` and the
like. Plain Celery does not change with this repository: with PLAIN=kept its last complete run on
that broker counts, and is not done again. Prints what differs; ends with 1 if that is anything that
the documentation does not name.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Final, TypeVar
from xml.etree import ElementTree

import psycopg
from redis import Redis

from celery_suite.differences import DOCUMENTED
from outbox_migrations import upgrade
from servers import Postgres, RabbitMQ, Valkey
from servers.ports import free_port
from servers.processes import kill_family, spawn
from servers.rabbitmq_packages import find_or_fetch

TOOLS: Final = Path(__file__).resolve().parents[1]
#: A test that has taken so long has failed, in seconds.
TEST_TIMEOUT: Final = 300

Outcomes = dict[str, str]


def main(suite: Path, kind: str, options: list[str]) -> int:
    """Run both at a time, which wait more than they work; compare them, return the exit code."""
    results = {name: suite.parent / f"{kind}-{name}.xml" for name in ("plain", "outbox")}
    kept = os.environ.get("PLAIN") == "kept" and results["plain"].exists()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="celery-suite-")))
        postgres = started(Postgres(folder / "postgres"), stack)
        database = postgres.create_database()
        upgrade(database)
        brokers = iter(BROKERS[kind](folder, stack))
        ours = servers_of("outbox", next(brokers), folder, stack)
        ours |= {"OUTBOX_DATABASE_URL": database}
        stack.enter_context(relaying(folder, ours))
        with ThreadPoolExecutor(2) as both:
            plugin = ("-p", "celery_suite.plugin")
            through = both.submit(run, suite, options, results["outbox"], ours, plugin)
            if not kept:
                plain = servers_of("plain", next(brokers), folder, stack)
                both.submit(run, suite, options, results["plain"], plain, ()).result()
            through.result()
        print("rows:", ", ".join(rows(database)))
        return report(outcomes(results["plain"]), outcomes(results["outbox"]))


S = TypeVar("S", Postgres, RabbitMQ, Valkey)


def started(server: S, stack: ExitStack) -> S:
    """Start a server that ends with the stack."""
    stack.callback(server.discard)
    server.start()
    return server


def rabbitmq_urls(folder: Path, stack: ExitStack) -> Iterator[str]:
    """Return virtual hosts of one RabbitMQ."""
    rabbitmq = started(RabbitMQ(folder / "rabbitmq", root=find_or_fetch()), stack)
    while True:
        yield rabbitmq.url(rabbitmq.create_vhost())


def redis_urls(folder: Path, stack: ExitStack) -> Iterator[str]:
    """Return Valkeys of their own: subscriptions, which the suite counts, are a server's."""
    for number in count():
        yield started(Valkey(folder / f"broker{number}"), stack).url


BROKERS: Final = {"rabbitmq": rabbitmq_urls, "redis": redis_urls}


def servers_of(name: str, broker: str, folder: Path, stack: ExitStack) -> dict[str, str]:
    """Return the environment of one run: a broker, and a Valkey of its own for results."""
    valkey = started(Valkey(folder / name), stack)
    # The suite also looks into Redis itself, and knows of no password.
    Redis.from_url(valkey.url).config_set("requirepass", "")
    return {"TEST_BROKER": broker, "TEST_BACKEND": f"redis://127.0.0.1:{valkey.port}/0"}


def run(
    suite: Path,
    options: list[str],
    results: Path,
    servers: Mapping[str, str],
    plugin: tuple[str, ...],
) -> None:
    """Run the suite in a process of its own, which writes down how each test ended."""
    redis_port = servers["TEST_BACKEND"].rsplit(":", 1)[1].partition("/")[0]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")},
        **servers,
        "PYTHONPATH": os.pathsep.join((str(TOOLS), str(suite))),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": redis_port,
    }
    command = [sys.executable, "-m", "pytest", *plugin, "-p", "celery.contrib.pytest"]
    command += ["-p", "no:cacheprovider"]
    command += [f"--timeout={TEST_TIMEOUT}", f"--junit-xml={results}", "-v", "--tb=short"]
    # The one file left out is about a store of Azure, and skipped without an account there.
    command += options or ["t/integration", "--ignore=t/integration/test_backend.py"]
    with results.with_suffix(".log").open("wb") as log:
        subprocess.run(command, cwd=suite, env=environment, check=False, stdout=log, stderr=log)


def outcomes(results: Path) -> Outcomes:
    """Read pytest's report: for each test passed, failed or skipped."""
    found: Outcomes = {}
    for case in ElementTree.parse(results).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        failed = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None
        found[name] = "failed" if failed else "skipped" if skipped else "passed"
    return found


@contextmanager
def relaying(folder: Path, servers: Mapping[str, str]) -> Iterator[None]:
    """Have a relay of its own publish for the time of a block."""
    environment = {
        **os.environ,
        "OUTBOX_DATABASE_URL": servers["OUTBOX_DATABASE_URL"],
        "OUTBOX_BROKER_URL": servers["TEST_BROKER"],
        "OUTBOX_HTTP_ADDRESS": f"127.0.0.1:{free_port()}",
        # The suite sends pickle and YAML as well.
        "OUTBOX_ALLOW_CONTENT_TYPES": "*",
    }
    command = [str(Path(sys.executable).with_name("outbox-relay")), "run"]
    relay = spawn(command, folder=folder, log=folder / "relay.log", environment=environment)
    try:
        yield
    finally:
        kill_family(relay)


def rows(database: str) -> list[str]:
    """Return what became of the rows."""
    with psycopg.connect(database) as connection:
        return [
            f"{count} {state}"
            for state in ("pending", "scheduled", "sent", "dead", "expired")
            for (count,) in connection.execute(f"SELECT count(*) FROM outbox.{state}".encode())
        ]


def report(plain: Outcomes, ours: Outcomes) -> int:
    """Print what differs, and return 1 if something does that nobody has explained."""
    for name, results in (("plain", plain), ("outbox", ours)):
        counts = [f"{list(results.values()).count(how)} {how}" for how in ("passed", "failed")]
        print(f"{name}: {', '.join(counts)} of {len(results)}")
    unexplained = 0
    for test in sorted(plain.keys() | ours.keys()):
        before, after = plain.get(test, "absent"), ours.get(test, "absent")
        if before == after:
            continue
        why = next((why for end, why in DOCUMENTED.items() if test.endswith(end)), None)
        unexplained += why is None and after != "passed"
        print(f"{test}: {before}, through the outbox {after}: {why or 'not documented'}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    suite, kind, *options = sys.argv[1:]
    sys.exit(main(Path(suite).resolve(), kind, options))
