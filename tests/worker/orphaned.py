"""An app for real workers on Redis, whose task kills the first worker that runs it."""

import os
import signal
from typing import Any

from celery import Celery

from celery_inbox import reliable

app = Celery("orphaned", broker=os.environ.get("ORPHANED_BROKER"), set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    task_time_limit=1,
    broker_transport_options={
        "visibility_timeout": 2,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 5,
    },
)
reliable(app)


@app.task(bind=True)
def outlive(self: Any) -> None:
    """Take the whole worker along, and leave the message to another one."""
    if not self.request.delivery_info.get("redelivered"):
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
