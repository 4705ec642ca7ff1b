#!/usr/bin/env bash
# In a quorum queue a message without a priority overtakes those of priority 0 to 3.
#
# Versions: amqp 5.4.2, RabbitMQ 4.3.6.
# Expected: no priority is the lowest one: AMQP's default, what classic queues do, and Celery's 0.
# Happens:  it counts as 4. A message of priority 0, sent first, comes after one that has none.
# Matters:  "no priority" and "priority 0" must be kept apart from the producer to the wire: whoever fills
#           in a 0 for what was not said sends it behind everything else.

. "$(dirname "$0")/lib/finding.sh"
packages amqp==5.4.2
rabbitmq 4.3

python - <<'END'
import os

import amqp

PRIORITIES = (0, 3, None, 4, 5)


def order(channel, queue, arguments):
    """Send one message of each priority, and see in which order they come."""
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
    for priority in PRIORITIES:
        properties = {} if priority is None else {"priority": priority}
        message = amqp.Message(str(priority), delivery_mode=2, **properties)
        channel.basic_publish_confirm(message, routing_key=queue)
    taken = [channel.basic_get(queue, no_ack=True) for _ in PRIORITIES]
    return [message.body for message in taken]


with amqp.Connection(f"127.0.0.1:{os.environ['AMQP_PORT']}", confirm_publish=True) as connection:
    channel = connection.channel()
    classic = order(channel, "classic", {"x-queue-type": "classic", "x-max-priority": 9})
    quorum = order(channel, "quorum", {"x-queue-type": "quorum"})
    print(f"sent {PRIORITIES}; classic: {classic}; quorum: {quorum}")
    assert classic == ["5", "4", "3", "0", "None"]
    assert quorum == ["5", "None", "4", "3", "0"]
END
