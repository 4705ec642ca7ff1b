#!/usr/bin/env bash
# With quorum queues, a task with a countdown that is sent before any worker ever ran is lost silently.
#
# Versions: celery 5.7.0, kombu 5.7.0, amqp 5.4.2, RabbitMQ 3.10.8 and 4.3.6.
# Expected: apply_async(countdown=5) declares what it publishes to, as it declares the task's queue; or
#           it raises.
# Happens:  Celery sees the quorum queue and sends to its exchange of delays, celery_delayed_27, which
#           only a worker declares as it starts. Without publisher confirms (Celery's default) the call
#           returns an AsyncResult and the message is nowhere; with them it raises NotFound (404).
# Matters:  after a broker is rebuilt, or in a deployment that starts its web servers first, delayed tasks
#           vanish, and those without a delay arrive. An outbox must hold what is not due itself.

. "$(dirname "$0")/lib/finding.sh"
packages celery==5.7.0 kombu==5.7.0 amqp==5.4.2
rabbitmq

python - <<'END'
import os

from amqp.exceptions import NotFound
from celery import Celery


def app(confirm):
    made = Celery("app", broker=f"amqp://guest:guest@127.0.0.1:{os.environ['AMQP_PORT']}//")
    made.conf.task_default_queue_type = "quorum"
    made.conf.task_default_exchange = "tasks"
    made.conf.task_default_exchange_type = "topic"
    made.conf.broker_transport_options = {"confirm_publish": confirm}
    return made


def waiting(app):
    """Messages in the queue of the tasks."""
    with app.connection_for_read() as connection:
        return connection.channel().queue_declare("celery", passive=True).message_count


plain, confirming = app(confirm=False), app(confirm=True)
result = plain.send_task("task", countdown=1)
print(f"countdown, no confirms: returned {type(result).__name__}")
try:
    confirming.send_task("task", countdown=1)
except NotFound as error:
    print(f"countdown, confirms: {error}")
    assert "celery_delayed_27" in str(error)
else:
    raise AssertionError("the exchange is there")
confirming.send_task("task")
with plain.connection_for_read() as connection:
    exchanges = []
    for name in ("tasks", "celery_delayed_27"):
        try:
            connection.channel().exchange_declare(name, "topic", passive=True)
            exchanges.append(name)
        except NotFound:
            pass
print(f"exchanges afterwards: {exchanges}; messages in the queue: {waiting(plain)}, sent without delay")
assert exchanges == ["tasks"]
assert waiting(plain) == 1
END
