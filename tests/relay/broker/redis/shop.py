"""An ordinary Celery app, as its workers load it: nothing of ours in it."""

import os
from pathlib import Path

from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

app = Celery("shop", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_queues=[
        Queue("celery"),
        Queue("bills", Exchange("orders", "direct"), routing_key="bill"),
        Queue("events", Exchange("events", "topic"), routing_key="order.#"),
        Broadcast("news"),
    ],
    task_ignore_result=True,
    broker_transport_options={"global_keyprefix": "shop:"},
    worker_prefetch_multiplier=1,
)


@app.task(name="shop.note")
def note(word: str) -> None:
    """Write down that a task ran."""
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{word}\n")
