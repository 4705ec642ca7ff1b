"""An app for real workers that announce themselves and keep what they cannot run."""

import os
import signal
from pathlib import Path
from typing import Any

from celery import Celery
from kombu.message import Message

from celery_inbox import announce, reliable

app = Celery("knowing", broker=os.environ.get("KNOWING_BROKER", "amqp://"), set_as_current=False)
app.conf.task_time_limit = 60
app.conf.accept_content = ["json"]
reliable(app, quorum=os.environ.get("KNOWING_QUORUM", "1") == "1")
if url := os.environ.get("KNOWING_DATABASE"):
    announce(app, url)


if killed := os.environ.get("KNOWING_KILLED"):
    # As if the process had been killed once, between a put and its acknowledgement.
    mark = Path(killed)
    acknowledge = Message.ack_log_error

    def die_once(self: Message, *args: Any, **options: Any) -> None:
        """Acknowledge, but not the first time."""
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        acknowledge(self, *args, **options)

    Message.ack_log_error = die_once  # type: ignore[method-assign]
    app.conf.broker_transport_options = {"visibility_timeout": 2, "unacked_restore_interval": 1}
    app.conf.task_time_limit = 1  # else the visibility timeout would be made to outlast it


def nothing() -> None:
    """Do nothing, and succeed."""


for known in os.environ.get("KNOWING_TASKS", "shop.known").split(","):
    app.task(name=known)(nothing)
