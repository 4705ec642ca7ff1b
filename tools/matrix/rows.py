"""What is tried: a version, the tests chosen for its kind, and what came of them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from matrix import places
from servers import ServerMissing, postgres_packages, rabbitmq_packages

#: Longer than any of the suites takes on two busy cores.
SECONDS: Final = 2400
#: What each kind of server is tried with: the tests in which it has a say.
SUITES: Final[Mapping[str, tuple[str, ...]]] = {
    "RabbitMQ": (
        "tests/relay/broker/amqp",
        "tests/relay/broker/test_conformance.py",
        "tests/relay/loop",
        "tests/relay/operator/test_doctor_rabbitmq.py",
        "tests/end_to_end/test_options.py",
        "tests/end_to_end/test_quorum_delay.py",
        "tests/worker/test_reliability.py",
    ),
    "Redis and Valkey": (
        "tests/relay/broker/redis",
        "tests/relay/broker/test_conformance.py",
        "tests/relay/operator/test_doctor_redis.py",
        "tests/servers/test_valkey.py",
    ),
    "Postgres": (
        "tests/migrations",
        "tests/relay/postgres",
        "tests/producer/test_using.py",
        "tests/producer/test_sqlalchemy.py",
        "tests/servers/test_postgres.py",
    ),
    "Python": (
        "tests/producer/test_capture.py",
        "tests/producer/test_routing.py",
        "tests/producer/test_using.py",
        "tests/relay/core",
        "tests/worker/test_key.py",
    ),
}


#: Where the commands are, and the variables for them.
Prepared = tuple[Path, dict[str, str]]

RABBITMQ: Final = tuple(rabbitmq_packages.RELEASES)
POSTGRES: Final = tuple(postgres_packages.RELEASES)
PYTHON: Final = ("3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True, slots=True)
class Row:
    """A version, and how to run the tests of its kind on it."""

    kind: str
    name: str
    prepare: Callable[[], Prepared]

    @property
    def key(self) -> str:
        """What it is called on the command line."""
        return self.name.lower().replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one row; `missing` says why it could not be tried."""

    kind: str
    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    failures: tuple[str, ...] = ()
    missing: str = ""


def rows(uv: str) -> list[Row]:
    """Every row there is."""
    served = [("RabbitMQ", f"RabbitMQ {n}", partial(places.rabbitmq, n)) for n in RABBITMQ]
    served += [
        ("Redis and Valkey", name, partial(places.like_redis, name)) for name in places.LIKE_REDIS
    ]
    served += [("Postgres", f"Postgres {n}", partial(places.postgres, n)) for n in POSTGRES]
    return [
        *(Row(kind, name, partial(_here, variables)) for kind, name, variables in served),
        *(Row("Python", f"Python {n}", partial(_elsewhere, n, uv)) for n in PYTHON),
    ]


def _here(variables: Callable[[], dict[str, str]]) -> Prepared:
    return Path(sys.executable).parent, variables()


def _elsewhere(version: str, uv: str) -> Prepared:
    return places.python(version, uv), {}


def run(row: Row, arguments: list[str]) -> Result:
    """Run the tests of a row's kind on it."""
    result = partial(Result, row.kind, row.name)
    try:
        commands, variables = row.prepare()
    except ServerMissing as error:
        return result(missing=str(error).splitlines()[0])
    argv = [str(commands / "pytest"), "-q", "-m", "not long", *SUITES[row.kind], *arguments]
    log = places.CHECKOUT / ".matrix" / f"{row.key}.log"
    log.parent.mkdir(exist_ok=True)
    start = monotonic()
    with log.open("w") as output:
        try:
            subprocess.run(
                argv,
                cwd=places.CHECKOUT,
                env={**os.environ, **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return result(missing=f"not done within {SECONDS} s: {log}")
    said = log.read_text(errors="replace")
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (\w+)", said.strip().splitlines()[-1])}
    return result(
        passed=counts.get("passed", 0),
        failed=counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0),
        skipped=counts.get("skipped", 0),
        seconds=monotonic() - start,
        failures=tuple(re.findall(r"(?m)^(?:FAILED|ERROR) (\S+)", said)),
    )
