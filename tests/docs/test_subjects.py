"""What people looked for and did not find has its place in the documentation."""

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
#: Who looks for it, the page, and words that stand there.
SUBJECTS = {
    "workers on Redis": ("README.md", "celery[redis]"),
    "dead messages": ("README.md", "retried, unchanged"),
    "rollout": ("docs/rollout.md", "## In"),
    "roll-back with messages waiting": ("docs/rollout.md", "## Back"),
    "a unit for systemd": ("docs/rollout.md", "## A unit for systemd"),
    "tests": ("docs/how-to/testing.md", "# Testing what sends tasks"),
    "eager tasks": ("docs/how-to/testing.md", "**before the commit**"),
    "tests that commit": ("docs/how-to/testing.md", "TransactionTestCase"),
    "tests that count queries": ("docs/how-to/testing.md", "assertNumQueries"),
    "tests without Postgres": ("docs/how-to/testing.md", "SQLite"),
    "a worker within a test": ("docs/ecosystem.md", "perform_ping_check=False"),
    "revoke": ("docs/how-to/revoke.md", "result.revoke()"),
    "tasks that wait for their time": ("docs/how-to/revoke.md", "inspect.scheduled()"),
    "Flower": ("docs/ecosystem.md", "## Flower and remote control"),
    "Sentry": ("docs/ecosystem.md", "sentry-sdk"),
    "OpenTelemetry": ("docs/ecosystem.md", "opentelemetry-instrumentation-celery"),
    "gevent": ("docs/ecosystem.md", "--pool=gevent"),
    "beat's database on a new Django": ("docs/ecosystem.md", "Django 6.1 installs 2.1.0"),
    "runs of beat in an outage": ("docs/how-to/beat.md", "## While the database is down"),
    "logs of what rolls back": ("docs/ecosystem.md", "logged for what rolls back"),
    "batches": ("docs/ecosystem.md", "acknowledges a batch that raises"),
    "locks before a send": ("docs/ecosystem.md", "### Locks that are taken before a send"),
    "events of a send": ("docs/from-plain-celery.md", "`task_send_sent_event`"),
    "subscriptions to results": ("docs/from-plain-celery.md", "nothing is subscribed at the send"),
    "options that only Redis carries": ("docs/from-plain-celery.md", "`self.request.properties`"),
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_it_is_said(subject: str) -> None:
    """On the page where one would look."""
    page, words = SUBJECTS[subject]

    assert words in " ".join((CHECKOUT / page).read_text().split())
