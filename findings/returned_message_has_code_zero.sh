#!/usr/bin/env bash
# The error for a message that RabbitMQ returned as unroutable has `code` 0 in py-amqp.
#
# Versions: amqp 5.4.2, RabbitMQ 3.10.8 and 4.3.6.
# Expected: `error.code` is AMQP's reply code, 312 (NO_ROUTE), as it is 404 for a missing exchange.
# Happens:  the error is a plain ChannelError whose `code`, an attribute of the class, is 0; the 312 is in
#           `reply_code` alone. For a missing exchange both are 404.
# Matters:  who sorts errors by `code` takes an unroutable message, which a missing binding explains, for
#           an unknown failure of the channel.

. "$(dirname "$0")/lib/finding.sh"
packages amqp==5.4.2
rabbitmq

python - <<'END'
import os

import amqp


def failure(connection, **publish):
    """What a confirmed publish raises."""
    channel = connection.channel()
    try:
        channel.basic_publish_confirm(amqp.Message("body"), routing_key="nowhere", **publish)
    except amqp.AMQPError as error:
        return error
    raise AssertionError("nothing was raised")


address = f"127.0.0.1:{os.environ['AMQP_PORT']}"
with amqp.Connection(address, confirm_publish=True) as connection:
    returned = failure(connection, mandatory=True)
    missing = failure(connection, exchange="none")
for what, error in (("no queue", returned), ("no exchange", missing)):
    print(f"{what}: {type(error).__name__}, code {error.code}, reply_code {error.reply_code}")
assert (returned.code, returned.reply_code) == (0, 312)
assert (missing.code, missing.reply_code) == (404, 404)
END
