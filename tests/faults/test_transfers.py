"""Money is moved exactly once, whatever is killed while it moves.

FAULTS_SEED repeats a run, FAULTS_TRANSFERS changes how many transfers it makes.
"""

import os
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.branch import Branch
from tests.faults.storm import assert_exact, replay, report, work_through
from tests.fixtures.broker import OwnRabbitMQ
from tests.fixtures.postgres import OwnPostgres
from tests.fixtures.valkey import OwnValkey

TRANSFERS = int(os.environ.get("FAULTS_TRANSFERS") or 10_000)
FAULTS = {"child": 4, "parent": 2, "relay": 3, "broker": 2, "backend": 3}


@pytest.mark.timeout(1200)
def test_transfers_on_rabbitmq(
    own_postgres: OwnPostgres, own_rabbitmq: OwnRabbitMQ, tmp_path: Path
) -> None:
    """With nothing but what runs by itself: no message is lost, no effect happens twice."""
    with closing(Branch(own_postgres(), own_rabbitmq(), tmp_path)) as branch:
        teller = work_through(branch, TRANSFERS, FAULTS)
        branch.stop_workers()

        assert_exact(branch, teller)
        report(branch, teller)


@pytest.mark.timeout(1200)
def test_transfers_on_redis(
    own_postgres: OwnPostgres, own_valkey: OwnValkey, tmp_path: Path
) -> None:
    """Kombu can lose what a worker popped as Redis died: a replay brings it, the rest is absorbed.

    Every write is on the disk before it is answered; even so, only the outbox still has these.
    """
    broker = own_valkey({"appendfsync": "always"})
    with closing(Branch(own_postgres(), broker, tmp_path)) as branch:
        since = branch.now()
        teller = work_through(branch, TRANSFERS, FAULTS)
        lost = TRANSFERS - branch.executed()
        replayed = replay(branch, teller, since)
        branch.stop_workers()

        assert_exact(branch, teller)
        assert replayed >= TRANSFERS
        print(f"  {lost} of them lost by the broker; {replayed} messages replayed")
        report(branch, teller)
