"""What Celery's own tests may find different through the outbox, and the page that says so.

A test that fails plain as well is no difference. docs/compatibility.md has the same list.
"""

from typing import Final

SUBSCRIBES: Final = "nothing is subscribed in Redis as a task is sent, but as it is waited for"

#: Test, by the end of its name -> why it differs.
DOCUMENTED: Final[dict[str, str]] = {
    "test_Inspect::test_scheduled": "a task with an eta waits in the outbox, not in a worker",
    "test_task_sent_event_respects_publish_retry_limit": "a task takes no producer of the broker",
    "test_asyncresult_forget_cancels_subscription": SUBSCRIBES,
    "test_asyncresult_get_cancels_subscription": SUBSCRIBES,
    "test_fixture_teardown_releases_backend_connections": (
        "its apps have a broker in memory, which no relay can reach"
    ),
}
