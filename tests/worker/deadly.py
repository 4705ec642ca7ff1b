"""An app for real workers, one of whose tasks kills whatever runs it."""

import os
import signal

from celery import Celery
from kombu import Queue

from celery_inbox import reliable

LIMIT = 2

app = Celery("deadly", broker=os.environ.get("DEADLY_BROKER", "amqp://"), set_as_current=False)
app.conf.task_time_limit = 60
if names := os.environ.get("DEADLY_QUEUES"):
    # The first is the classic queue of before, the last the quorum queue of now.
    before, now = names.split(",")
    app.conf.task_queues = [Queue(before, queue_arguments={"x-queue-type": "classic"}), Queue(now)]
reliable(app, delivery_limit=LIMIT)


@app.task
def die() -> None:
    """Take the process along."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def live() -> None:
    """Do nothing, and succeed."""
