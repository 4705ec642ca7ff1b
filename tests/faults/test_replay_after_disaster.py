"""RabbitMQ loses its disk: a replay sends all of it again, the inbox drops what had run."""

import os
import random
import re
import shutil
from time import monotonic

import pytest

from tests.faults.conftest import OpenBranch
from tests.faults.storm import assert_exact, report, seed, settle, watch
from tests.faults.teller import Teller
from tests.fixtures.broker import OwnRabbitMQ

TRANSFERS = int(os.environ.get("FAULTS_TRANSFERS") or 5_000)


@pytest.mark.timeout(600)
def test_replay_after_the_broker_lost_its_disk(
    open_branch: OpenBranch, own_rabbitmq: OwnRabbitMQ
) -> None:
    """Of 5,000 confirmed tasks a third had run when all the others were lost: each runs once."""
    broker = own_rabbitmq()
    branch = open_branch(broker)
    [(since,)] = branch.run("SELECT now()::text")
    with Teller(branch.database, random.Random(seed()), TRANSFERS, TRANSFERS) as teller:
        watch(branch, teller, lambda: teller.finished() and branch.unsent() == 0, "all confirmed")
        branch.start_workers()
        watch(branch, teller, lambda: teller.executed >= TRANSFERS // 3, "a third is executed")

        broker.kill()
        shutil.rmtree(broker.folder / "data")
        start = monotonic()
        broker.start()
        settle(branch, teller)
        lost = TRANSFERS - branch.executed()
        assert lost > TRANSFERS // 3

        replay = branch.relay_command("replay", "--since", since.replace(" ", "T"), "--yes")
        assert replay.wait() == 0
        watch(branch, teller, lambda: branch.executed() >= TRANSFERS, "the lost ones")
        settle(branch, teller)
    branch.stop_workers()

    assert_exact(branch, teller)
    replayed = int(re.sub(r"\D", "", replay.output().split("pending again")[0].splitlines()[-1]))
    assert replayed >= TRANSFERS
    assert branch.absorbed() >= TRANSFERS - lost
    print(f"  {lost} transfers lost with the disk; {replayed} messages replayed")
    report(branch, teller, start)
