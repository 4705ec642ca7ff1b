"""Fault 19 as it is met in practice: Patroni kills, freezes, cuts off or changes the leader.

Two relays find the next one by themselves, each with an outbox of its own in the same cluster: one
through HAProxy, one by a URL with all members.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import median
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
from tests.faults.takeover import Takeover, Witness
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.waiting import wait_until

WINDOW: Final = 200
SOME: Final = 100
FAIL_OVERS: Final = int(os.environ.get("FAIL_OVERS", "4"))
STRIKES: Final = ("freeze", "partition", "kill", "switch-over")
#: Most of the time everything waits: two clusters of a kind, side by side, have half of them each.
FIRST: Final = (FAIL_OVERS + 1) // 2
HALVES: Final = {
    "first half": [*islice(cycle(STRIKES), FIRST)],
    "second half": [*islice(cycle(STRIKES), FIRST, FAIL_OVERS)],
}
#: Until messages are sent again, from the new leader's first commit on, in seconds.
RECOVERY: Final = 15.0
#: Between two transactions of a producer, of which there are two in a cluster, in seconds.
PAUSE: Final = 0.02

NOTHING: Final = Verdict(frozenset(), 0, frozenset(), frozenset())

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


@dataclass(slots=True)
class Way:
    """How an outbox is reached, and what was ever committed there; its name is its database's."""

    name: str
    url: str
    rabbit: RabbitQueue
    ledger: Ledger = field(default_factory=Ledger)
    verdict: Verdict = NOTHING
    #: Committed, and lost by the cluster.
    forgotten: int = 0

    def begin(self) -> None:
        """Make the outbox; its messages go to a queue of their own."""
        upgrade(self.url)
        queue = {"kind": "queue", "name": self.name, "routing_key": self.name}
        self.ledger.columns = {"routing_key": self.name, "declare": json.dumps([queue])}

    def goes_on(self) -> None:
        """Wait until more is sent by whoever leads now: of rows that are committed here."""
        more: set[str] = set()

        def sent() -> bool:
            try:
                if len(more) < SOME:
                    more.update(self.ledger.commit(self.url, SOME))
                return more <= {*ask(self.url, SENT)}
            except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
                return False

        wait_until(sent, SECONDS, "messages under way")

    def judge(self) -> tuple[int, int, int]:
        """How many were lost, sent twice and lost by the cluster since it was last asked."""
        wait_until(lambda: ask(self.url, UNSENT) == [0], SECONDS, "an empty outbox")
        arrived, stored = self.rabbit.arrived(self.name), {*ask(self.url, STORED)}
        before, gone = self.verdict, self.forgotten
        self.forgotten = len(self.ledger.committed - stored)
        self.verdict = Verdict(
            lost=frozenset(stored - arrived.keys()),
            duplicated=arrived.total() - len(arrived),
            recovered=frozenset(self.ledger.unknown & arrived.keys()),
            unexpected=frozenset(arrived.keys() - stored),
        )
        lost = len(self.verdict.lost - before.lost)
        return lost, self.verdict.duplicated - before.duplicated, self.forgotten - gone


@pytest.mark.fault(19)
@pytest.mark.timeout(300 + 90 * FIRST)
@pytest.mark.parametrize("half", [half for half, strikes in HALVES.items() if strikes])
@pytest.mark.parametrize(
    ("cluster", "fence"),
    [(True, "off"), (False, "standby:1")],
    indirect=["cluster"],
    ids=["synchronous", "asynchronous, fenced"],
)
def test_the_leader_changes(
    cluster: PatroniCluster,
    relay: RelayFactory,
    rabbit: RabbitQueue,
    record: Record,
    fence: str,
    half: str,
) -> None:
    """Nothing is lost that the cluster kept, no task is without its order, no relay is restarted.

    Messages are sent again within 15 seconds of the new leader's first commit.
    """
    with psycopg.connect(cluster.through_haproxy("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE haproxy")
        connection.execute("CREATE DATABASE multihost")
    ways = [
        Way("haproxy", cluster.through_haproxy("haproxy"), rabbit),
        Way("multihost", cluster.anywhere("multihost"), rabbit),
    ]
    relays = [started(relay, way, fence) for way in ways]
    seen: list[Takeover] = []
    for strike in HALVES[half]:
        seen += fail_over(cluster, ways, strike)

    verdict, allowed = both(*(way.verdict for way in ways)), 2 * len(HALVES[half]) * WINDOW
    verdict.assert_kept(duplicates=allowed)
    assert fence != "off" or not any(way.forgotten for way in ways), "a commit is lost"
    assert all(each.process.poll() is None for each in relays)
    slowest = max(each.sent for each in seen)
    assert slowest <= RECOVERY
    note = "; ".join(told(way, [each for each in seen if each.way == way.name]) for way in ways)
    record(Measured(verdict, len(HALVES[half]), allowed, slowest, note))


def started(relay: RelayFactory, way: Way, fence: str) -> Relay:
    """A relay of an outbox that is made for it."""
    way.begin()
    return relay(
        OUTBOX_DATABASE_URL=way.url,
        OUTBOX_BROKER_URL=way.rabbit.url,
        OUTBOX_WINDOW=str(WINDOW),
        OUTBOX_BATCH_SIZE="20",
        OUTBOX_STATEMENT_TIMEOUT="3s",
        OUTBOX_FENCE=fence,
    )


def fail_over(cluster: PatroniCluster, ways: Sequence[Way], strike: str) -> list[Takeover]:
    """One under load, from messages under way to an empty outbox and a cluster that is whole."""
    old, kind = cluster.leader, "synchronous" if cluster.synchronous else "asynchronous, fenced"
    with ExitStack() as stack:
        for way in ways:
            stack.enter_context(Producer(way.ledger, way.url, PAUSE))
            way.goes_on()
        watched = [(way.ledger, cluster.others_than(old, way.name)) for way in ways]
        witnesses = [stack.enter_context(Witness(*each)) for each in watched]
        struck = monotonic()
        try:
            old.strike(strike)
            times = [witness.wait(SECONDS) for witness in witnesses]
        finally:  # a producer may hang in a session with it
            healed = monotonic()
            old.heal()
        cluster.wait_whole()
        back = monotonic() - healed
    seen = [
        Takeover(
            *(strike, kind, way.name),
            *(led - struck, followed - led, sent - led, back),
            *way.judge(),
        )
        for way, (led, followed, sent) in zip(ways, times, strict=True)
    ]
    for each in seen:
        each.write()
    return seen


def both(one: Verdict, other: Verdict) -> Verdict:
    """Of both outboxes together."""
    return Verdict(
        lost=one.lost | other.lost,
        duplicated=one.duplicated + other.duplicated,
        recovered=one.recovered | other.recovered,
        unexpected=one.unexpected | other.unexpected,
    )


def told(way: Way, seen: Sequence[Takeover]) -> str:
    """What docs/faults.md says of it."""
    sent = [each.sent for each in seen]
    return (
        f"{way.name}: {len(way.ledger.committed):,} orders, {way.forgotten} of them lost "
        f"by the cluster; sent again {median(sent):.1f} s after the new leader's first commit, "
        f"{max(sent):.1f} s at most"
    )


def ask(url: str, statement: LiteralString) -> list[Any]:
    """The first column of what a statement returns."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        return [row[0] for row in connection.execute(statement)]
