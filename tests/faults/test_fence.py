"""Fault 19, again and again: fail-overs to an asynchronous standby, with and without a fence.

What a promotion loses was committed, and may have been published: a task whose order is not there.
Behind `OUTBOX_FENCE=standby:1` none is published before the standby has it on its disk.
"""

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median
from time import sleep
from typing import Final, LiteralString

import pytest

from tests.faults.checker import Verdict
from tests.faults.conftest import Record
from tests.faults.ledger import Ledger, Producer
from tests.faults.queues import RabbitQueue
from tests.faults.results import Measured
from tests.faults.succession import SECONDS, Succession
from tests.faults.takeover import Witness
from tests.fixtures.programs import RelayFactory
from tests.fixtures.waiting import wait_until

WINDOW: Final = 200
SOME: Final = 100
#: How often; 20 for a figure that says something.
FAIL_OVERS: Final = int(os.environ.get("FAIL_OVERS", "3"))
#: The standby may have heard nothing of the primary for so long when that dies, in seconds.
DEAF: Final = 0.3

UNSENT: LiteralString = "SELECT pending + scheduled + dead FROM outbox.stats"
STORED: LiteralString = "SELECT message_id FROM outbox.message"
RECEIPTS: LiteralString = "SELECT coalesce(sum(cardinality(ids)), 0)::int FROM outbox.receipt"


@pytest.fixture
def succession() -> Iterator[Succession]:
    """A primary and its asynchronous standby."""
    with ExitStack() as stack:
        yield Succession(stack).start()


@pytest.mark.timeout(60 + 60 * FAIL_OVERS)
@pytest.mark.parametrize("fence", [pytest.param("standby:1", marks=pytest.mark.fault(19)), "off"])
def test_tasks_without_their_order(
    succession: Succession, relay: RelayFactory, rabbit: RabbitQueue, record: Record, fence: str
) -> None:
    """None with the fence; without it, some: the network of the standby fails just before."""
    ledger, chance = Ledger(), random.Random(1)
    recoveries: list[float] = []
    running = relay(
        OUTBOX_DATABASE_URL=succession.anywhere,
        OUTBOX_BROKER_URL=rabbit.url,
        OUTBOX_WINDOW=str(WINDOW),
        OUTBOX_BATCH_SIZE="20",
        OUTBOX_FENCE=fence,
    )
    with Producer(ledger, succession.anywhere):
        for count in range(FAIL_OVERS):
            if count:
                succession.replace()
            goes_on(succession)
            succession.cut()
            sleep(chance.uniform(0, DEAF))  # any moment is as good as another
            with Witness(ledger, [succession.next_url]) as witness:
                succession.fail_over()
                if fence == "off":
                    led, sent = witness.wait_sent(SECONDS)
                    recoveries.append(sent - led)
    if fence != "off":
        assert "0 standbys are connected" in running.wait_for_event("standbys_lost")["reason"]
        succession.replace()
    wait_until(lambda: succession.ask(UNSENT) == [0], SECONDS, "an empty outbox")

    arrived, stored = rabbit.arrived("celery"), {*succession.ask(STORED)}
    verdict = Verdict(
        lost=frozenset(stored - arrived.keys()),
        duplicated=arrived.total() - len(arrived),
        recovered=frozenset(),
        unexpected=frozenset(arrived.keys() - stored),
    )
    assert not verdict.lost
    assert verdict.duplicated <= FAIL_OVERS * WINDOW
    assert bool(verdict.unexpected) == (fence == "off")
    longest = (
        f", sent again {median(recoveries):.1f} s after the new primary's first commit, "
        f"{max(recoveries):.1f} s at most"
        if recoveries
        else ""
    )
    note = f"{len(stored):,} orders, {len(verdict.unexpected)} tasks without theirs{longest}"
    print(f"\n{FAIL_OVERS} fail-overs, fence {fence}: {note}, {verdict.duplicated} sent twice")
    record(Measured(verdict, FAIL_OVERS, FAIL_OVERS * WINDOW, note=note))


def goes_on(succession: Succession) -> None:
    """Wait until more is sent by the primary of now."""
    [before] = succession.ask(RECEIPTS)
    wait_until(lambda: succession.ask(RECEIPTS)[0] > before + SOME, SECONDS, "messages under way")
