"""An app for a real worker that soon gives up waiting for its outbox database."""

import os
from typing import Any

from celery_outbox import OutboxCelery, worker

worker.PATIENCE = 0.5  # type: ignore[misc]  # the test's own

app = OutboxCelery("patient", broker=os.environ.get("PATIENT_BROKER"), set_as_current=False)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)


@app.task(name="patient.first")
def first() -> int:
    """Be followed by something."""
    return 1


@app.task(name="patient.flaky", bind=True)
def flaky(self: Any) -> None:
    """Retry at once."""
    raise self.retry(countdown=0)
