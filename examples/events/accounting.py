"""Another service, which knows kombu and neither Celery nor the outbox: `python accounting.py`."""

import os
from typing import Any

from kombu import Connection, Exchange, Message, Queue

QUEUES = [
    Queue("new-orders", Exchange("orders", type="topic"), routing_key="order.placed.*"),
    Queue("newspaper", Exchange("news", type="fanout")),
    Queue(
        "swiss-customs",
        Exchange("customs", type="headers"),
        binding_arguments={"x-match": "all", "country": "ch"},
    ),
    Queue("invoices", Exchange("payments", type="direct"), routing_key="invoice"),
]


def receive(body: Any, message: Message) -> None:
    """Take note of an event; acknowledged last, so that none is lost."""
    delivery: Any = message.delivery_info
    print(delivery["exchange"], body["item"], body["country"], flush=True)
    message.ack()


if __name__ == "__main__":
    with (
        Connection(os.environ["BROKER_URL"]) as connection,
        connection.Consumer(QUEUES, callbacks=[receive]),
    ):
        print("ready", flush=True)
        while True:
            connection.drain_events()
