"""eventlet: workers run tasks side by side, with psycopg waiting in a way that is patched."""

from tests.ecosystem.pools import Meeting
from tests.ecosystem.pools import meeting as meeting
from tests.fixtures.programs import WorkerFactory


def test_tasks_run_side_by_side(meeting: Meeting) -> None:
    """The way in which psycopg waits by itself, in C, is one that eventlet cannot patch."""
    meeting("eventlet", PSYCOPG_WAIT_FUNC="wait_select")


def test_a_worker_says_so(database: str, valkey_url: str, celery_worker: WorkerFactory) -> None:
    """A worker of a `reliable` app, where psycopg would stop all tasks, warns at its start."""
    environment = {"OUTBOX_DATABASE_URL": database, "BROKER_URL": valkey_url}
    for told, warned in ({}, True), ({"PSYCOPG_WAIT_FUNC": "wait_select"}, False):
        worker = celery_worker("tests.ecosystem.pools", "--pool=eventlet", **environment, **told)
        assert ("start the worker with PSYCOPG_WAIT_FUNC" in worker.output()) == warned
