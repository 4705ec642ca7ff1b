"""The shop's Celery app, the same for whoever sends and whoever runs.

It needs a broker only as a worker: senders write to the outbox in the shop's own database.
"""

import os

from celery_inbox import receipts, reliable
from celery_outbox import OutboxCelery

app = OutboxCelery("shop", include=["shop.tasks"])
app.conf.update(
    broker_url=os.environ.get("SHOP_BROKER_URL"),
    result_backend=os.environ.get("SHOP_RESULTS_URL"),
)
if (app.conf.broker_url or "").startswith(("redis", "valkey")):
    # RabbitMQ gives back at once what a lost worker held. Redis does after a time, which may be
    # short where no task runs that long; unless told, kombu looks for such messages every 100 s.
    # With RabbitMQ a time limit would do harm: Celery counts the time in which it looks for its
    # broker, and fails tasks that had ended.
    app.conf.update(
        task_time_limit=10,
        broker_transport_options={
            "visibility_timeout": 15,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 5,
        },
    )
reliable(app)
if url := os.environ.get("OUTBOX_DATABASE_URL"):
    receipts(app, url)  # how each task ended: what `outbox-relay audit` and the console know
