"""Money is moved exactly once, whatever is killed while it moves.

FAULTS_SEED repeats a run, FAULTS_TRANSFERS changes how many transfers it makes.
"""

import os
import random
from time import monotonic

import pytest

from tests.faults.branch import Branch
from tests.faults.conftest import OpenBranch
from tests.faults.storm import assert_exact, report, seed, settle, strike_all
from tests.faults.teller import Teller
from tests.fixtures.broker import OwnRabbitMQ
from tests.fixtures.valkey import OwnValkey

TRANSFERS = int(os.environ.get("FAULTS_TRANSFERS") or 10_000)
FAULTS = {"child": 4, "parent": 2, "relay": 3, "broker": 2, "backend": 3}


@pytest.mark.timeout(1200)
def test_transfers_on_rabbitmq(open_branch: OpenBranch, own_rabbitmq: OwnRabbitMQ) -> None:
    """With nothing but what runs by itself: no message is lost, no effect happens twice."""
    branch = open_branch(own_rabbitmq())

    teller, start = work_through_the_storm(branch)

    branch.stop_workers()
    assert_exact(branch, teller)
    report(branch, teller, start)


@pytest.mark.timeout(1200)
def test_transfers_on_redis(open_branch: OpenBranch, own_valkey: OwnValkey) -> None:
    """Kombu can lose what a worker popped as Redis died: a replay brings it, the rest is absorbed.

    Every write is on the disk before it is answered; even so, only the outbox still has these.
    """
    branch = open_branch(own_valkey({"appendfsync": "always"}))
    [(since,)] = branch.run("SELECT now()::text")

    teller, start = work_through_the_storm(branch)

    missing = TRANSFERS - branch.executed()
    replay = branch.relay_command("replay", "--since", since.replace(" ", "T"), "--yes")
    assert replay.wait() == 0
    settle(branch, teller)
    branch.stop_workers()
    assert_exact(branch, teller)
    print(f"  {missing} transfers were lost by the broker and brought back by the replay")
    report(branch, teller, start)


def work_through_the_storm(branch: Branch) -> tuple[Teller, float]:
    """Order and execute all transfers while everything is killed, and wait for the quiet."""
    chosen, start = seed(), monotonic()
    faults = [fault for fault, times in FAULTS.items() for _ in range(times)]
    branch.start_workers()
    with Teller(branch.database, random.Random(f"teller {chosen}"), TRANSFERS, 500) as teller:
        chance = random.Random(f"storm {chosen}")
        strikes = strike_all(branch, teller, faults, TRANSFERS, chance)
        settle(branch, teller)
    assert len(strikes) == sum(FAULTS.values())
    assert branch.crashes() >= FAULTS["backend"]
    return teller, start
