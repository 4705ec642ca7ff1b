"""A bank of this test's own, on servers that may be killed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from servers import RabbitMQ, Valkey
from tests.faults.branch import Branch
from tests.fixtures.postgres import OwnPostgres

OpenBranch = Callable[[RabbitMQ | Valkey], Branch]


@pytest.fixture
def open_branch(own_postgres: OwnPostgres, tmp_path: Path) -> Iterator[OpenBranch]:
    """Open a bank on that broker, its relay running; everything ends with the test."""
    with ExitStack() as closing:

        def open_branch(broker: RabbitMQ | Valkey) -> Branch:
            branch = Branch(own_postgres(), broker, tmp_path)
            closing.callback(branch.close)
            return branch

        yield open_branch
