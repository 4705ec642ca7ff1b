"""A Celery app whose broker takes a message back when nobody has acknowledged it for a second.

That is Redis's visibility timeout, an hour by default, looked after every hundred seconds; here all
is smaller, so that an ETA of seconds is as far beyond it as one of days.
"""

import os
from pathlib import Path
from typing import Final

from celery import Celery

TAKEN_BACK: Final = {
    "visibility_timeout": 1,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}

app = Celery("appointments", broker=os.environ.get("BROKER_URL"))
app.conf.update(broker_transport_options=TAKEN_BACK, task_ignore_result=True)


@app.task(name="appointments.note")
def note(word: str) -> None:
    """Write down that the time has come."""
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{word}\n")
