#!/usr/bin/env bash
# One message beyond the size a broker takes, and what follows it on its channel is gone without a word.
#
# Versions: amqp 5.4.2, RabbitMQ 4.3.6.
# Expected: the broker says at the connection what it takes, or refuses that message with a nack.
# Happens:  the limit (16 MiB by default since 4.0) is told nowhere, and the body is read whole before the
#           channel is closed with 406. What came before it is in the queue, confirmed by then or not; what
#           was written after it is neither confirmed nor refused. Other channels go on.
# Matters:  whoever pipelines confirms must publish again what was in flight on that channel, and on no
#           other, and find the culprit by its size; dropping the connection harms everybody else.

. "$(dirname "$0")/lib/finding.sh"
packages amqp==5.4.2
rabbitmq 4.0

python - <<'END'
import os

import amqp
from amqp.exceptions import PreconditionFailed

MEBIBYTE = 1 << 20
connection = amqp.Connection(f"127.0.0.1:{os.environ['AMQP_PORT']}")
connection.connect()
assert not any("size" in name for name in connection.server_properties["capabilities"])
busy, beside = connection.channel(), connection.channel()
confirmed = []
busy.queue_declare("queue", durable=True, auto_delete=False)
busy.confirm_select()
busy.events["basic_ack"].add(lambda tag, multiple: confirmed.append(tag))
try:
    for number in range(200):  # which may learn of the end before it is through
        size = 17 * MEBIBYTE if number == 100 else 10
        busy.basic_publish(amqp.Message(b"x" * size, delivery_mode=2), routing_key="queue")
    while True:
        connection.drain_events(timeout=20)
except PreconditionFailed as error:
    said = str(error)
count = beside.queue_declare("queue", passive=True).message_count
print(said)
print(f"sent 100, a large one and others; in the queue: {count}, confirms up to the {max(confirmed, default=0)}th")
assert "message size 17825792 is larger than configured max size 16777216" in said
assert count == 100
END
