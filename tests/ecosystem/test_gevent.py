"""gevent: workers run tasks side by side, with nothing to change, on both brokers."""

from typing import Any

import pytest

from tests.ecosystem.pools import tasks_meet
from tests.fixtures.programs import RelayFactory, WorkerFactory


@pytest.mark.parametrize("fixture", ["valkey_url", "broker_url"])
def test_tasks_run_side_by_side(
    fixture: str,
    request: pytest.FixtureRequest,
    database: str,
    effects: Any,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
) -> None:
    """Once everything is patched, psycopg waits in gevent's way by itself."""
    url = request.getfixturevalue(fixture)
    tasks_meet("gevent", database, url, effects, relay, celery_worker)
