"""The primary dies, its standby is promoted: the relay follows, and what Postgres kept is sent."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import pytest

from servers import Postgres, Standby
from tests.faults.checker import Verdict, judge
from tests.faults.ledger import Ledger, Producer
from tests.faults.proxy import Proxy
from tests.faults.queues import RabbitQueue, through
from tests.faults.results import Measured
from tests.fixtures.postgres import migrated_database
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.waiting import wait_until

DEADLINE: Final = 60.0
WINDOW: Final = 200
ROWS: Final = 100

UNSENT: LiteralString = "SELECT pending + scheduled + dead FROM outbox.stats"
SENT: LiteralString = "SELECT count(*) FROM outbox.sent"
STORED: LiteralString = "SELECT message_id FROM outbox.message"
IDS: LiteralString = "SELECT id FROM outbox.message WHERE message_id = ANY (%s)"
CAUGHT_UP: LiteralString = (
    "SELECT count(*) FROM pg_stat_replication"
    " WHERE application_name = 'standby' AND replay_lsn = pg_current_wal_lsn()"
)


@dataclass(slots=True)
class Pair:
    """A primary and its standby, with a network to the standby that may fail."""

    primary: Postgres
    standby: Standby
    #: What the standby hears of the primary, and how the relay reaches the standby.
    replication: Proxy
    to_standby: Proxy
    url: str
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def anywhere(self) -> str:
        """The database on whichever of the two takes writes."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.to_standby.port}"
        login, _, place = self.url.rpartition("@")
        return f"{login}@{hosts}/{place.partition('/')[2]}?target_session_attrs=read-write"

    @property
    def promoted(self) -> str:
        """The database on the standby."""
        return through(self.url, self.standby.port)

    def ask(self, url: str, statement: LiteralString, *parameters: Any) -> list[Any]:
        """The first column of what a statement returns."""
        with psycopg.connect(url) as connection:
            return [row[0] for row in connection.execute(statement, parameters)]

    def wait_until_sent(self) -> None:
        """Wait until the promoted server has nothing left to send."""
        wait_until(lambda: self.ask(self.promoted, UNSENT) == [0], DEADLINE, "an empty outbox")

    def judge(self, rabbit: RabbitQueue) -> Verdict:
        """Compare what was committed with what arrived."""
        return judge(self.ledger, rabbit.arrived("celery"), set(self.ask(self.promoted, STORED)))


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two servers; the parameter is the primary's `synchronous_standby_names`."""
    with ExitStack() as stack:
        primary = Postgres(_folder(), {"synchronous_standby_names": ""})
        stack.callback(primary.discard)
        url = migrated_database(primary.start())
        standby = Standby(_folder(), primary)
        stack.callback(standby.discard)
        replication = stack.enter_context(Proxy(primary.port))
        standby.source_port = replication.port
        standby.start()
        if request.param:
            primary.settings = {**primary.settings, "synchronous_standby_names": request.param}
            primary.restart()
        to_standby = stack.enter_context(Proxy(standby.port))
        yield Pair(primary, standby, replication, to_standby, url)


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="celery-outbox-pair-"))


@pytest.fixture
def running(pair: Pair, relay: RelayFactory, rabbit: RabbitQueue) -> Iterator[tuple[Relay, Proxy]]:
    """A relay that is told of both servers, and the network between it and its broker."""
    port = int(rabbit.url.rpartition(":")[2].partition("/")[0])
    with Proxy(port) as to_broker:
        started = relay(
            OUTBOX_DATABASE_URL=pair.anywhere,
            OUTBOX_BROKER_URL=through(rabbit.url, to_broker.port),
            OUTBOX_WINDOW=str(WINDOW),
            OUTBOX_BATCH_SIZE="20",
        )
        yield started, to_broker


@pytest.mark.fault(19)
@pytest.mark.parametrize("pair", ["standby"], indirect=True)
def test_with_a_synchronous_standby_nothing_is_lost(
    pair: Pair,
    running: tuple[Relay, Proxy],
    rabbit: RabbitQueue,
    record: Callable[[Measured], None],
) -> None:
    """Whatever was committed is sent by the same relay, through the other server."""
    with Producer(pair.ledger, pair.anywhere):
        wait_until(lambda: pair.ask(pair.url, SENT) >= [ROWS], DEADLINE, "messages under way")

        pair.primary.kill()
        pair.standby.promote()

        wanted = len(pair.ledger.committed) + ROWS
        wait_until(lambda: len(pair.ledger.committed) >= wanted, DEADLINE, "further commits")
    pair.wait_until_sent()

    verdict = pair.judge(rabbit)
    verdict.assert_kept(duplicates=WINDOW)
    assert pair.ledger.committed <= set(pair.ask(pair.promoted, STORED))
    record(Measured(verdict, 1, WINDOW, note="nothing lost with a synchronous standby"))


@pytest.mark.fault(19)
@pytest.mark.parametrize("pair", [""], indirect=True)
def test_what_the_promotion_lost_costs_nothing_else(
    pair: Pair, running: tuple[Relay, Proxy], rabbit: RabbitQueue
) -> None:
    """The promoted server gives new messages the ids of those it never heard of.

    What the relay still remembers of the old ones must not be taken for the new ones.
    """
    relay, to_broker = running
    kept = pair.ledger.commit(pair.url, ROWS)
    wait_until(lambda: pair.ask(pair.url, SENT) == [ROWS], DEADLINE, "the first messages")
    wait_until(lambda: pair.ask(pair.url, CAUGHT_UP) == [1], DEADLINE, "a standby that has them")
    pair.replication.refuse()
    pair.to_standby.refuse()
    to_broker.hold("down")
    lost = pair.ledger.commit(pair.url, ROWS)
    wait_until(lambda: rabbit.broker.depth("celery") == 2 * ROWS, DEADLINE, "unconfirmed messages")
    lost_ids = pair.ask(pair.url, IDS, list(lost))

    pair.primary.kill()
    to_broker.heal()
    wait_until(lambda: published(relay) == 2 * ROWS, DEADLINE, "confirms that cannot be settled")
    pair.standby.promote()
    new = pair.ledger.commit(pair.promoted, 2 * ROWS)
    assert set(lost_ids) & set(pair.ask(pair.promoted, IDS, list(new)))
    pair.to_standby.heal()
    pair.wait_until_sent()

    assert pair.judge(rabbit).lost == frozenset()
    assert set(pair.ask(pair.promoted, STORED)) == kept | new


@pytest.mark.fault(19)
@pytest.mark.parametrize("pair", [""], indirect=True)
def test_a_standby_is_not_claimed_from(
    pair: Pair, relay: RelayFactory, rabbit: RabbitQueue
) -> None:
    """A relay that was sent to one says so, and waits until it is promoted."""
    misled = relay(wait=False, OUTBOX_DATABASE_URL=pair.promoted, OUTBOX_BROKER_URL=rabbit.url)
    assert "is a standby" in misled.wait_for_event("database_lost")["reason"]
    pair.ledger.commit(pair.url, ROWS)
    wait_until(lambda: pair.ask(pair.url, CAUGHT_UP) == [1], DEADLINE, "a standby that has them")
    assert not misled.ready()
    assert pair.ask(pair.promoted, UNSENT) == [ROWS]

    pair.primary.kill()
    pair.standby.promote()
    pair.wait_until_sent()

    pair.judge(rabbit).assert_kept(duplicates=0)


def published(relay: Relay) -> int:
    """How many messages it knows to be confirmed."""
    lines = relay.metrics().splitlines()
    counts = (line for line in lines if line.startswith("outbox_published_total{"))
    return sum(int(float(line.rpartition(" ")[2])) for line in counts)
