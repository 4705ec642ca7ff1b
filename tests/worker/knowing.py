"""An app for real workers that announce themselves and keep what they cannot run."""

import os

from celery import Celery

from celery_inbox import announce, reliable

app = Celery("knowing", broker=os.environ.get("KNOWING_BROKER", "amqp://"), set_as_current=False)
app.conf.task_time_limit = 60
app.conf.accept_content = ["json"]
reliable(app, quorum=os.environ.get("KNOWING_QUORUM", "1") == "1")
if url := os.environ.get("KNOWING_DATABASE"):
    announce(app, url)


def nothing() -> None:
    """Do nothing, and succeed."""


for known in os.environ.get("KNOWING_TASKS", "shop.known").split(","):
    app.task(name=known)(nothing)
