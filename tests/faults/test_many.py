"""Fault 52: of the outboxes that one relay serves, one has its database away."""

from collections.abc import Callable
from pathlib import Path

import pytest

from servers import Postgres
from tests.faults.lab import DEADLINE, Lab
from tests.faults.proxy import Proxy
from tests.faults.queues import through
from tests.relay.many.tenants import Tenant

ROWS = 200
ONE = {"OUTBOX_DATABASE_URL": ""}  # the lab's way, in whose place the file stands


@pytest.fixture
def neighbour(postgres: Postgres, migrated_template: str) -> Tenant:
    """Another outbox, in a database that stays."""
    return Tenant(postgres.create_database(template=migrated_template), "outbox", "neighbour")


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    "strike", [Proxy.hold, Proxy.refuse], ids=lambda strike: str(strike.__name__)
)
def test_the_database_of_one_of_many_is_away(
    lab: Lab, neighbour: Tenant, tmp_path: Path, strike: Callable[[Proxy], None]
) -> None:
    """It hangs or refuses in the middle of a backlog: the others flow, and its own is complete."""
    file = tmp_path / "outboxes"
    there = through(lab.database, lab.to_database.port)
    file.write_text(f"{there} name=away\n{neighbour.url} name=neighbour\n")
    relay = lab.relay(ONE, OUTBOX_DATABASES_FILE=str(file))
    lab.under_way(1)
    neighbour.wait_sent(neighbour.commit())
    with lab.fault(lambda: relay.events("database_lost")):
        lab.under_way(ROWS)
        strike(lab.to_database)
        lab.commit(ROWS)
        neighbour.wait_sent(neighbour.commit(ROWS), DEADLINE)
        relay.wait_for_event("database_lost", DEADLINE)
        neighbour.wait_sent(neighbour.commit(ROWS), DEADLINE)
    lab.to_database.heal()

    lab.finish()
