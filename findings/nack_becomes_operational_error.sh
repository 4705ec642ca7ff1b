#!/usr/bin/env bash
# A nack is an OperationalError, as if the broker were away, once kombu is asked to retry.
#
# Versions: kombu 5.7.0, amqp 5.4.2, RabbitMQ 4.3.6.
# Expected: Producer.publish(retry=True, retry_policy={"max_retries": 2}) raises MessageNacked when a full
#           queue (x-overflow: reject-publish) says no, as it does without retry.
# Happens:  the nack counts as a recoverable error of the connection: kombu connects anew, tries again and
#           in the end raises OperationalError. Without max_retries it would go on for ever.
# Matters:  a full queue looks like an outage: who pauses everything at an outage stops healthy queues, and
#           each attempt costs a connection.

. "$(dirname "$0")/lib/finding.sh"
packages kombu==5.7.0 amqp==5.4.2
rabbitmq 4.3

python - <<'END'
import os

from kombu import Connection

FULL = {"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"}


def attempt(**policy):
    """Publish more than there is room for; what comes of it, and how often kombu tried again."""
    url = f"amqp://guest:guest@127.0.0.1:{os.environ['AMQP_PORT']}//"
    with Connection(url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.default_channel
        channel.queue_declare("full", durable=True, auto_delete=False, arguments=FULL)
        producer = connection.Producer()
        again = []
        if policy:
            policy["errback"] = lambda error, _: again.append(type(error).__name__)
        for _ in range(3):
            try:
                producer.publish("x", routing_key="full", retry=bool(policy), retry_policy=policy)
            except Exception as error:
                return type(error).__name__, again
    return "taken", again


once = attempt()
retried = attempt(max_retries=2, interval_start=0, interval_step=0)
print(f"without retry: {once[0]}; with max_retries=2: {retried[0]}, after {', '.join(retried[1])}")
assert once == ("MessageNacked", [])
assert retried == ("OperationalError", ["MessageNacked", "MessageNacked"])
END
