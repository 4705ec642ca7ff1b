"""An app whose default queue is a quorum queue behind a topic exchange: Celery delays by it.

`celery -A tests.end_to_end.delayed worker`: configured by the environment alone.
"""

import os
from datetime import UTC, datetime
from typing import Any

from celery import Task

from celery_outbox import OutboxCelery

app = OutboxCelery("delayed", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get("LAB_BROKER_URL"),
    task_default_queue="orders",
    task_default_exchange="orders",
    task_default_exchange_type="topic",
    task_default_queue_type="quorum",
)


@app.task(bind=True, max_retries=2)
def remind(self: "Task[Any, Any]", name: str, pause: float) -> None:
    """Run at the third attempt, after two pauses; say when each attempt began."""
    print(f"{name} {self.request.retries} {datetime.now(UTC).timestamp()}", flush=True)
    if self.request.retries < 2:
        raise self.retry(countdown=pause)
