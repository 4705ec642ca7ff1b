"""The whole way on real servers: outbox, relay, RabbitMQ, an ordinary worker, and back."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from django.utils import timezone  # type: ignore[import-untyped]  # Django ships no types

from celery_inbox import reliable
from tests.django_tasks import work
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.waiting import wait_until


def test_whatever_dies_on_the_way(
    app: Any,
    database: str,
    tmp_path: Path,
    broker_url: str,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
) -> None:
    """A worker that was told of no queue runs them all; one whose process dies, once more."""
    app.conf.broker_url = broker_url
    reliable(app)
    soon = timezone.now() + timedelta(seconds=5)
    dying = work.die_once.enqueue()
    mailed = work.add_async.using(queue_name="mail", priority=-50).enqueue(1, right=2)
    later = work.add.using(run_after=soon).enqueue(2)
    failing = work.fail.enqueue("no")
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker_url)
    worker = celery_worker(
        "tests.django_tasks.site_app",
        DJANGO_SETTINGS_MODULE="tests.django_tasks.site_settings",
        DATABASE_URL=database,
        BROKER_URL=broker_url,
        RESULTS_URL=f"file://{tmp_path}",
    )

    def all_finished() -> bool:
        for result in (dying, mailed, later, failing):
            result.refresh()
        return all(result.is_finished for result in (dying, mailed, later, failing))

    wait_until(all_finished, 60, "the results")

    name = mailed.worker_ids[0]
    assert dying.return_value == [name, name]
    assert (mailed.return_value, later.return_value) == (3, 2)
    assert later.started_at >= soon
    assert failing.errors[0].exception_class is work.Rejected
    assert "Task tests.django_tasks.work.add_async" in worker.output()
