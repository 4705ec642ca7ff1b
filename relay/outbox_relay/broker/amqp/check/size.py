"""Whether a RabbitMQ takes bodies as large as producers store. Nobody tells, so it is tried.

One body as large as the default of `outbox_max_body` is sent to no queue, over a connection of its
own that gives up where the broker takes nothing for some seconds.
"""

from typing import Any, Final

import amqp
from amqp.exceptions import AccessRefused, AMQPError, PreconditionFailed

from outbox_relay.broker.amqp.connect import open_connection, words_of
from outbox_relay.broker.amqp.size import CODE, limit_in
from outbox_relay.core.finding import Finding, ok, warn

NAME: Final = "message size"
#: What producers store unless the Celery setting `outbox_max_body` says otherwise, in bytes.
STORED: Final = 16_777_216
#: A queue that nobody has; on the default exchange it is a routing key like any other.
NOWHERE: Final = "outbox-relay-doctor-asks-only"


def check(url: str) -> list[Finding]:
    """Compare the largest body that the broker takes with what producers store."""
    connection = open_connection(url)
    try:
        channel: Any = connection.channel()
        channel.confirm_select()
        channel.basic_publish_confirm(amqp.Message(bytes(STORED)), routing_key=NOWHERE)
    except PreconditionFailed as error:
        if (limit := limit_in(CODE, str(error))) is not None:
            return [_smaller(limit)]
        return [_untried(str(error))]
    except AccessRefused:
        return [_untried("the user may not write to the default exchange")]
    except (OSError, AMQPError) as error:
        return [_untried(words_of(error))]
    finally:
        connection.collect()
    return [ok(NAME, f"bodies of {STORED} bytes are taken, the default of outbox_max_body")]


def _smaller(limit: int) -> Finding:
    return warn(
        NAME,
        f"the broker takes bodies up to {limit} bytes (max_message_size), producers store up to "
        f"{STORED} unless told otherwise: what is between dies as too_large",
        f"set outbox_max_body = {limit} in Celery's configuration, or raise max_message_size",
    )


def _untried(why: str) -> Finding:
    return warn(
        NAME,
        f"whether bodies of {STORED} bytes are taken could not be tried: {why}",
        "compare RabbitMQ's max_message_size with outbox_max_body of the producers",
    )
