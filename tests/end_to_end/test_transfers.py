"""A small storm for every day; `make test-faults` has the large ones."""

from contextlib import closing
from pathlib import Path

from tests.faults.branch import Branch
from tests.faults.storm import assert_exact, replay, work_through
from tests.fixtures.postgres import OwnPostgres
from tests.fixtures.valkey import OwnValkey

TRANSFERS = 300
FAULTS = {"child": 1, "parent": 1, "relay": 1, "broker": 1, "backend": 1}


def test_transfers_while_one_of_each_kind_is_killed(
    own_postgres: OwnPostgres, own_valkey: OwnValkey, tmp_path: Path
) -> None:
    """Every transfer is executed exactly once, and every balance is right."""
    broker = own_valkey({"appendfsync": "always"})
    with closing(Branch(own_postgres(), broker, tmp_path)) as branch:
        since = branch.now()
        teller = work_through(branch, TRANSFERS, FAULTS)
        # Redis has no acknowledgement: what kombu popped as the server died only the outbox has.
        replay(branch, teller, since)
        branch.stop_workers()

        assert_exact(branch, teller)
