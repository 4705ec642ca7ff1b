"""A million random sends, for `make soak-producer`: committed is stored, rolled back is absent."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import psycopg
import pytest

from tests.producer.drivers import ASYNCHRONOUS, DJANGO, SYNCHRONOUS, Driver
from tests.producer.soaking import Sums, asoak, soak

THREADS, TASKS = 16, 200
GREENLETS = [driver for driver in SYNCHRONOUS if not driver.name.endswith("psycopg2")]
CASES = (
    [("threads", driver) for driver in (*SYNCHRONOUS, DJANGO)]
    + [("greenlets", driver) for driver in GREENLETS]
    + [("coroutines", driver) for driver in ASYNCHRONOUS]
)
SENDS = int(os.environ.get("SOAK_SENDS", "1000000")) // len(CASES)
SEED = int(os.environ.get("SOAK_SEED", "1"))


def threads(driver: Driver, url: str) -> Sums:
    """From sixteen threads."""
    with ThreadPoolExecutor(THREADS) as pool:

        def all_of(functions: list[Callable[[], None]]) -> None:
            for each in [pool.submit(function) for function in functions]:
                each.result()

        return soak(driver, url, SENDS, SEED, THREADS, all_of)


def greenlets(driver: Driver, url: str) -> Sums:
    """From two hundred greenlets, in a process of their own."""
    command = [sys.executable, "-m", "tests.producer.soaking", url, driver.name]
    answer = subprocess.run(
        [*command, str(SENDS), str(SEED)],
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(["tools", "."])},
    )
    committed, rolled_back, refused = json.loads(answer.stdout)
    return Sums(set(committed), rolled_back, refused)


def coroutines(driver: Driver, url: str) -> Sums:
    """From two hundred coroutines."""
    return asyncio.run(asoak(driver, url, SENDS, SEED, TASKS))


@pytest.mark.long
@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kind", "driver"), CASES, ids=[f"{kind}: {d}" for kind, d in CASES])
def test_soak(kind: str, driver: Driver, database: str, request: pytest.FixtureRequest) -> None:
    """Of what returned, everything that was committed is stored, and nothing else is."""
    if driver is DJANGO:
        request.getfixturevalue("django_database")
    run = {"threads": threads, "greenlets": greenlets, "coroutines": coroutines}[kind]
    began = monotonic()
    sums = run(driver, database)
    took = monotonic() - began
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT message_id FROM outbox.message").fetchall()
    stored = [message_id for (message_id,) in rows]
    lost = len(sums.committed - set(stored))
    extra = len(stored) - len(sums.committed) + lost
    print(
        f"\n| {kind} | {driver} | {sums.sends:,} | {len(sums.committed):,} | {sums.rolled_back:,} |"
        f" {sums.refused:,} | {lost} | {extra} | {took:.0f} s |"
    )

    assert (lost, extra) == (0, 0)
