"""gevent: workers run tasks side by side, with nothing to change, on both brokers."""

from tests.ecosystem.pools import Meeting
from tests.ecosystem.pools import meeting as meeting


def test_tasks_run_side_by_side(meeting: Meeting) -> None:
    """Once everything is patched, psycopg waits in gevent's way by itself."""
    meeting("gevent")
