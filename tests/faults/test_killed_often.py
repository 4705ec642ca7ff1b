"""A broker that is killed twenty times in one long drain, while producers go on inserting.

FAULTS_SEED repeats the moments of a run.
"""

import random
import re
from time import monotonic

import pytest

from tests.faults.lab import Lab, LabWith
from tests.faults.queues import RabbitQueue, ValkeyQueue
from tests.faults.storm import seed
from tests.fixtures.broker import Broker
from tests.fixtures.programs import Relay
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until

KILLS = 20
#: As in production, but for the window: it bounds the duplicates.
SETTINGS = {
    "OUTBOX_WINDOW": "1000",
    "OUTBOX_BATCH_SIZE": "250",
    "OUTBOX_CONFIRM_TIMEOUT": "30s",
    "OUTBOX_STATEMENT_TIMEOUT": "10s",
    "OUTBOX_LEASE": "10s",
}
_AT_ONCE = 2000


@pytest.mark.fault(9)
@pytest.mark.timeout(900)
def test_rabbitmq(lab_with: LabWith, mortal_broker: Broker) -> None:
    """100,000 rows, 20 kills: nothing is lost."""
    drain_through_kills(lab_with(RabbitQueue(mortal_broker)), 100_000)


@pytest.mark.fault(46)
@pytest.mark.timeout(900)
def test_valkey_that_writes_to_its_disk(lab_with: LabWith, own_valkey: OwnValkey) -> None:
    """50,000 rows, 20 kills, confirmed when they are on the disk: nothing is lost."""
    lab = lab_with(ValkeyQueue(own_valkey({"appendfsync": "everysec"})))
    drain_through_kills(lab, 50_000, OUTBOX_REDIS_CONFIRM="fsync")


def drain_through_kills(lab: Lab, rows: int, **changes: str) -> None:
    """Kill the broker at random moments of the drain."""
    chance = random.Random(seed())
    for _ in range(rows * 8 // 10 // _AT_ONCE):
        lab.commit(_AT_ONCE)
    began = monotonic()
    relay = lab.relay({**SETTINGS, **changes})
    with lab.producer(pause=0.05):
        moments = sorted(chance.sample(range(1000, rows * 8 // 10), KILLS))
        recoveries = [kill_at(lab, relay, moment) for moment in moments]
        while len(lab.ledger.committed) < rows:
            lab.commit(_AT_ONCE)
        lab.wait_until_sent(120)
    seconds = monotonic() - began

    verdict = lab.finish(
        duplicates=KILLS * int(SETTINGS["OUTBOX_WINDOW"]),
        note=f"{len(lab.ledger.committed):,} rows in {seconds:.0f} s, "
        f"back within {min(recoveries):.1f} to {max(recoveries):.1f} s",
    )
    assert lab.faults == KILLS
    print(
        f"  {len(lab.ledger.committed):,} rows and {KILLS} kills in {seconds:.0f} s:"
        f" none lost, {verdict.duplicated} duplicates"
    )


def kill_at(lab: Lab, relay: Relay, moment: int) -> float:
    """Kill the broker when so many are confirmed; seconds from its return until more are."""
    wait_until(lambda: published(relay) >= moment, 60, "the moment")
    server = lab.queue.server
    before = server.process.pid
    with lab.fault(lambda: server.process.pid != before):
        server.kill()
        server.start()
    back, done = monotonic(), published(relay)
    wait_until(lambda: published(relay) > done, 60, "more confirms")
    return monotonic() - back


def published(relay: Relay) -> float:
    """How many messages the relay has heard confirmed."""
    counts = re.findall(r"^outbox_published_total\{.*\} (\S+)$", relay.metrics(), re.MULTILINE)
    return sum(map(float, counts))
