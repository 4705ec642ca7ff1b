"""Fault 19 as it is met in practice: Patroni kills, freezes, cuts off or changes the leader.

The relay finds the next one by itself, through HAProxy or by a URL with all members.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from time import monotonic
from typing import Any, Final, LiteralString

import psycopg
import pytest

from outbox_migrations import upgrade
from servers import ServerMissing
from tests.faults.checker import Verdict
from tests.faults.conftest import Record
from tests.faults.ledger import Ledger, Producer
from tests.faults.patroni import SECONDS, PatroniCluster
from tests.faults.queues import RabbitQueue
from tests.faults.results import Measured
from tests.fixtures.programs import RelayFactory
from tests.fixtures.waiting import wait_until

WINDOW: Final = 200
SOME: Final = 100
FAIL_OVERS: Final = int(os.environ.get("FAIL_OVERS", "4"))
STRIKES: Final = ("freeze", "partition", "kill", "switch-over")

UNSENT: LiteralString = "SELECT pending + scheduled + dead FROM outbox.stats"
STORED: LiteralString = "SELECT message_id FROM outbox.message"
SENT: LiteralString = "SELECT message_id FROM outbox.sent"


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[PatroniCluster]:
    """A cluster; the parameter says whether commits wait for a standby."""
    folder = Path(tempfile.mkdtemp(prefix="celery-outbox-patroni-"))
    with ExitStack() as stack:
        try:
            made = PatroniCluster(folder, stack, synchronous=request.param)
        except ServerMissing as error:
            pytest.skip(str(error))
        yield made


@pytest.mark.fault(19)
@pytest.mark.timeout(180 + 90 * FAIL_OVERS)
@pytest.mark.parametrize(
    ("cluster", "haproxy", "fence"),
    [(True, True, "off"), (False, False, "standby:1")],
    indirect=["cluster"],
    ids=["synchronous, through HAProxy", "asynchronous, fenced, several hosts"],
)
def test_the_leader_changes(
    cluster: PatroniCluster,
    relay: RelayFactory,
    rabbit: RabbitQueue,
    record: Record,
    *,
    haproxy: bool,
    fence: str,
) -> None:
    """Nothing is lost that the cluster kept, and no task is without its order."""
    url = cluster.through_haproxy if haproxy else cluster.anywhere
    with psycopg.connect(url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
    upgrade(url("shop"))
    ledger, shop = Ledger(), url("shop")
    relay(
        OUTBOX_DATABASE_URL=shop,
        OUTBOX_BROKER_URL=rabbit.url,
        OUTBOX_WINDOW=str(WINDOW),
        OUTBOX_BATCH_SIZE="20",
        OUTBOX_STATEMENT_TIMEOUT="3s",
        OUTBOX_FENCE=fence,
    )
    recoveries: list[float] = []
    with Producer(ledger, shop):
        for strike in islice(cycle(STRIKES), FAIL_OVERS):
            goes_on(ledger, shop)
            heal = cluster.strike(strike)
            led = monotonic()
            goes_on(ledger, shop)
            recoveries.append(monotonic() - led)
            heal()
            cluster.wait_whole()
    wait_until(lambda: ask(shop, UNSENT) == [0], SECONDS, "an empty outbox")

    arrived, stored = rabbit.arrived("celery"), {*ask(shop, STORED)}
    verdict = Verdict(
        lost=frozenset(stored - arrived.keys()),
        duplicated=arrived.total() - len(arrived),
        recovered=frozenset(ledger.unknown & arrived.keys()),
        unexpected=frozenset(arrived.keys() - stored),
    )
    verdict.assert_kept(duplicates=FAIL_OVERS * WINDOW)
    if haproxy:
        assert ledger.committed <= stored, "a synchronous cluster lost a commit"
    gone = len(ledger.committed - stored)
    note = (
        f"{len(stored):,} orders, {gone} more lost by the cluster; sent again "
        f"{sorted(recoveries)[len(recoveries) // 2]:.1f} s after the new leader, "
        f"{max(recoveries):.1f} s at most"
    )
    record(Measured(verdict, FAIL_OVERS, FAIL_OVERS * WINDOW, note=note))


def ask(url: str, statement: LiteralString) -> list[Any]:
    """The first column of what a statement returns."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        return [row[0] for row in connection.execute(statement)]


def goes_on(ledger: Ledger, url: str) -> None:
    """Wait until more is sent by whoever leads now: of rows that are committed here.

    The producer beside it may hang in a session with a leader that is frozen.
    """
    more: set[str] = set()

    def sent() -> bool:
        try:
            if len(more) < SOME:
                more.update(ledger.commit(url, SOME))
            return more <= {*ask(url, SENT)}
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
            return False

    wait_until(sent, SECONDS, "messages under way")
