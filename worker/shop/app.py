"""The shop's Celery app, the same for whoever sends and whoever runs.

It needs a broker only as a worker: senders write to the outbox in the shop's own database.
"""

import os

from celery_inbox import reliable
from celery_outbox import OutboxCelery

app = OutboxCelery("shop", include=["shop.tasks"])
app.conf.update(
    broker_url=os.environ.get("SHOP_BROKER_URL"),
    result_backend=os.environ.get("SHOP_RESULTS_URL"),
    task_time_limit=60,
)
reliable(app)
