#!/usr/bin/env bash
# After a 404 py-amqp opens the channel again by itself, but without the confirm mode it was in.
#
# Versions: amqp 5.4.2, RabbitMQ 3.10.8 and 4.3.6.
# Expected: the channel stays closed and says so; or it is as it was, and confirms what is published.
# Happens:  the channel reports that it is open. The next message arrives in its queue, and no
#           confirm for it comes; after confirm_select() once more they do.
# Matters:  one message for an exchange that is missing makes every later one look unconfirmed, though all
#           arrive: a relay that publishes them again duplicates each. Take a new channel after any error.

. "$(dirname "$0")/lib/finding.sh"
packages amqp==5.4.2
rabbitmq

python - <<'END'
import os

import amqp


def confirmed(connection, channel):
    """Whether a message for the queue is confirmed before the broker answers what is asked next."""
    confirms = []
    channel.events["basic_ack"].add(lambda tag, multiple: confirms.append(tag))
    channel.basic_publish(amqp.Message("body"), routing_key="queue")
    arrived = depth(connection)
    channel.basic_qos(0, 1, False)  # an answer on the same channel comes after its confirms
    while not confirms:
        try:
            connection.drain_events(timeout=2)
        except TimeoutError:
            break
    return bool(confirms), arrived


def depth(connection):
    return connection.channel().queue_declare("queue", passive=True).message_count


address = f"127.0.0.1:{os.environ['AMQP_PORT']}"
with amqp.Connection(address) as connection:
    channel = connection.channel()
    channel.queue_declare("queue", durable=True, auto_delete=False)
    channel.confirm_select()
    found = {"before": confirmed(connection, channel)}
    channel.basic_publish(amqp.Message("body"), exchange="none")
    try:
        while True:
            connection.drain_events(timeout=5)
    except amqp.NotFound as error:
        print(f"missing exchange: {error}; channel open: {channel.is_open}")
    assert channel.is_open
    found["after"] = confirmed(connection, channel)
    channel.confirm_select()
    found["after confirm_select()"] = confirmed(connection, channel)
print(f"(confirmed, messages in the queue): {found}")
assert [yes for yes, _ in found.values()] == [True, False, True]
assert found["after confirm_select()"][1] == 3
END
