"""The app of the workers in test_million.py: a task that does nothing but leave a trace.

Each run appends its number to a file, in one write, so that what ran twice is seen as well.
Receipts go to the inbox.
"""

import logging
import os

from celery import Celery

from celery_inbox import receipts

app = Celery("mail_worker", broker=os.environ.get("MAIL_BROKER"), set_as_current=False)
app.conf.update(
    task_default_queue="mail",
    task_ignore_result=True,
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=500,
)
if database := os.environ.get("MAIL_DATABASE"):
    receipts(app, database)
for name in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(name).setLevel(logging.WARNING)  # two lines for each task


@app.task(name="shop.mail")
def mail(number: int, address: str) -> None:
    """Tell that it ran."""
    trace = os.open(os.environ["MAIL_TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(trace, b"%d\n" % number)
    finally:
        os.close(trace)
