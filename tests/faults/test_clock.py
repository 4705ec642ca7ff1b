"""Fault 41: clocks that jump, and clocks that show another hour than everybody else's.

The database's clock decides what is due and whose claim has run out; a relay waits by a clock that
nobody can set.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Postgres, ServerMissing
from tests.faults.clock import Clock
from tests.faults.lab import DEADLINE, Lab, LabOn
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.waiting import wait_until

HOUR = 3600


@pytest.fixture
def clock() -> Iterator[Clock]:
    """A clock in a folder that any user may read."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            yield Clock(folder)
        except ServerMissing as error:
            pytest.skip(f"no libfaketime: {error}")


@pytest.mark.fault(41)
@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])
def test_the_relays_clock_jumps(lab: Lab, clock: Clock, jump: int) -> None:
    """In mid-drain, either way: no difference at all."""
    relay = lab.relay(clock.environment)
    lab.under_way()
    with lab.fault(lambda: relay.process.poll() is None):
        clock.move(jump)
        lab.commit(1000)
        lab.wait_until_sent()

    lab.finish(duplicates=0)
    assert not relay.events("database_lost")
    assert not relay.events("broker_lost")


@pytest.fixture
def jumping(own_postgres: OwnPostgres, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """A server that is shown the clock; this process is not."""
    with monkeypatch.context() as patched:
        for name, value in clock.environment.items():
            patched.setenv(name, value)
        return own_postgres()


@pytest.mark.fault(41)
@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])
def test_the_databases_clock_jumps(
    lab_on: LabOn, jumping: Postgres, clock: Clock, jump: int
) -> None:
    """Claims seem over at once, or seem to last: two relays share the work all the same."""
    lab = lab_on(migrated_database(jumping))
    for _ in range(2):
        lab.relay()
    with lab.producer():
        lab.under_way(500)
        before = lab.run("SELECT extract(epoch FROM now())::int")[0][0]
        with lab.fault(
            lambda: (
                abs(lab.run("SELECT extract(epoch FROM now())::int")[0][0] - before) > HOUR // 2
            ),
            count=2,
        ):
            clock.move(jump)
            lab.under_way(500)

    lab.finish()


@pytest.mark.fault(41)
@pytest.mark.parametrize("zone", ["Pacific/Apia", "America/New_York"])
def test_another_time_zone(lab: Lab, zone: str) -> None:
    """An eta is a moment, wherever the relay and its session think they are."""
    relay = lab.relay(TZ=zone, PGTZ=zone)
    [(soon, late)] = lab.run(
        "SELECT (now() + interval '1 s')::text, (now() + interval '1 h')::text"
    )
    with lab.fault(lambda: lab.run("SELECT count(*) FROM outbox.scheduled") == [(5,)]):
        lab.commit(50, available_at=soon)
        later = lab.commit(5, available_at=late)
        wait_until(lambda: lab.sent() == 50, DEADLINE, "what is due soon")
    lab.run("DELETE FROM outbox.parked")
    lab.ledger.committed -= later
    early = lab.run(
        "SELECT 1 FROM outbox.sent JOIN outbox.message USING (id) WHERE sent_at < available_at"
    )

    assert early == []
    lab.finish(duplicates=0)
    assert relay.process.poll() is None
