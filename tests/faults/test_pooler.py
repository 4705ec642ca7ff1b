"""Fault 42: a pooler between relay and database; it may swallow NOTIFY, which nothing needs."""

import pytest

from tests.faults.lab import DEADLINE, Lab
from tests.fixtures.pgbouncer import Pooler
from tests.fixtures.waiting import wait_until


@pytest.mark.fault(42)
def test_session_mode(lab: Lab, pooler: Pooler) -> None:
    """Rows that come while the relay is idle are found: it looks, nobody tells it."""
    relay = lab.relay(OUTBOX_DATABASE_URL=pooler("session"))
    lab.under_way(1)
    lab.wait_until_sent()
    with lab.fault(lambda: lab.run("SELECT 1 FROM pg_listening_channels()") == [], count=0):
        lab.commit(500)
        lab.wait_until_sent()

    lab.finish(duplicates=0)
    assert not relay.events("database_lost")


@pytest.mark.fault(42)
def test_transaction_mode(lab: Lab, pooler: Pooler) -> None:
    """What a relay needs of its session is lost: `doctor` says so, and no message is."""
    url = pooler("transaction")
    lab.commit(500)
    doctor = lab.command("doctor", OUTBOX_DATABASE_URL=url)
    with lab.fault(lambda: doctor.wait() == 1 and "transaction mode" in doctor.output()):
        through = lab.relay(wait=False, OUTBOX_DATABASE_URL=url)
        wait_until(lambda: through.events("relay_started"), DEADLINE, "its start")
        through.stop()
    lab.relay()

    lab.finish()
