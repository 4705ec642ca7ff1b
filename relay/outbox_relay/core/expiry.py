"""What becomes of a message whose time has passed: an ending like others, and no error. Pure.

A task whose end somebody may wait for is published all the same: the worker ends it as revoked, as
it does without an outbox, so that results, chains and chords come to their end. The broker must not
throw it away before, so its own time limit is taken off. All others end without being published.
"""

import json

from outbox_relay.core.message import Message


def to_be_told(message: Message) -> Message | None:
    """The message as it is published so that a worker ends it, or None if nobody waits for it."""
    try:
        headers, properties = json.loads(message.headers), json.loads(message.properties)
        waited_for = "task" in headers and (
            headers.get("ignore_result") is not True or headers.get("group") is not None
        )
    except (ValueError, AttributeError):  # written by hand; nobody can have waited for it
        return None
    if not waited_for or not isinstance(properties, dict):
        return None
    properties.pop("expiration", None)
    return message._replace(properties=json.dumps(properties).encode())
