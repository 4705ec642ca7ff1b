"""A schedule whose tasks go through the outbox: `celery -A shop beat`."""

import os

from celery_outbox import OutboxCelery

app = OutboxCelery("shop", broker=os.environ.get("BROKER_URL"))
app.conf.outbox_database_url = os.environ["DATABASE_URL"]

app.conf.beat_schedule = {
    "count the stock": {"task": "shop.count_stock", "schedule": 1.0},
}


@app.task(name="shop.count_stock")
def count_stock() -> None:
    """Count what is left."""
