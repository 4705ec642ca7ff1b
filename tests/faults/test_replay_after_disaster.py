"""RabbitMQ loses its disk: a replay sends all of it again, the inbox drops what had run."""

import os
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.branch import Branch
from tests.faults.storm import assert_exact, replay, report, seed, settle, watch
from tests.faults.teller import Teller
from tests.fixtures.broker import OwnRabbitMQ
from tests.fixtures.postgres import OwnPostgres

TRANSFERS = int(os.environ.get("FAULTS_TRANSFERS") or 5_000)


@pytest.mark.timeout(600)
def test_replay_after_the_broker_lost_its_disk(
    own_postgres: OwnPostgres, own_rabbitmq: OwnRabbitMQ, tmp_path: Path
) -> None:
    """Of 5,000 confirmed tasks a third had run when all the others were lost: each runs once."""
    broker = own_rabbitmq()
    with closing(Branch(own_postgres(), broker, tmp_path)) as branch:
        since = branch.now()
        with Teller(branch.database, random.Random(seed()), TRANSFERS, TRANSFERS) as teller:
            watch(branch, teller, teller.finished, "all are ordered")
            watch(branch, teller, lambda: branch.unsent() == 0, "all are confirmed")
        branch.start_workers()
        watch(branch, teller, lambda: teller.executed >= TRANSFERS // 3, "a third is executed")

        broker.kill()
        shutil.rmtree(broker.folder / "data")
        broker.start()
        settle(branch, teller)
        lost = TRANSFERS - branch.executed()
        assert lost > TRANSFERS // 3

        replayed = replay(branch, teller, since)
        branch.stop_workers()

        assert_exact(branch, teller)
        assert replayed >= TRANSFERS
        assert branch.absorbed() >= TRANSFERS - lost
        print(f"  {lost} of them lost with the disk; {replayed} messages replayed")
        report(branch, teller)
