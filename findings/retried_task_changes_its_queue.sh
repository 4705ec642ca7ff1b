#!/usr/bin/env bash
# With quorum queues, a task of one queue that is retried with a countdown goes to the default queue.
#
# Versions: celery 5.7.0, kombu 5.7.0.
# Expected: retry(countdown=5) sends the task to the queue it came from, as retry(countdown=0) does.
# Happens:  the retry names the exchange and the routing key of its delivery. The router adds the default
#           queue, which they do not belong to; and the code that hands delayed tasks to the broker takes
#           the routing key from that queue, so they are forgotten.
# Matters:  the workers of another queue run the retry, or nobody does. An outbox that holds delayed tasks
#           must keep the destination as it was routed, not as it was rewritten for the delay.

. "$(dirname "$0")/lib/finding.sh"
packages celery==5.7.0 kombu==5.7.0

python - <<'END'
from celery import Celery
from kombu import Exchange, Queue

QUORUM = {"x-queue-type": "quorum"}
shop = Exchange("shop", "topic")
app = Celery("app", broker="amqp://")
app.conf.update(
    task_queues=[
        Queue("orders", shop, "for.orders", queue_arguments=QUORUM),
        Queue("mail", shop, "for.mail", queue_arguments=QUORUM),
    ],
    task_default_queue="orders",
    task_default_exchange="shop",
    task_default_exchange_type="topic",
    task_default_routing_key="for.orders",
)


@app.task(bind=True)
def send_mail(self):
    """Would retry itself."""


keys = []
app.amqp.send_task_message = lambda *_, routing_key, **__: keys.append(routing_key)
# As a worker of the queue `mail` has it.
send_mail.push_request(
    id="1", args=(), kwargs={}, retries=0, called_directly=False, is_eager=False,
    delivery_info={"exchange": "shop", "routing_key": "for.mail", "redelivered": False},
)
for countdown in (0, 5):
    send_mail.signature_from_request(send_mail.request, countdown=countdown).apply_async()
    print(f"a task of for.mail, retried with countdown={countdown}, goes to {keys[-1]}")
assert keys[0] == "for.mail"
assert keys[1].endswith(".1.0.1.for.orders")
END
