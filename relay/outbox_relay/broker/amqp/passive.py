"""Asks whether a queue is there, and how deep, without waiting for one that does not answer.

py-amqp's own method waits as long as the connection lives. A channel on which no answer came hangs
with its queue: others are to be asked about on another.
"""

from typing import Any, NamedTuple

from amqp import spec


class Unanswered(Exception):
    """A queue has not answered in time; the broker still does, as far as is known."""


class Declared(NamedTuple):
    """What the broker says of a queue that is there."""

    queue: str
    messages: int
    consumers: int


def ask(channel: Any, queue: str, within: float) -> Declared:
    """Wait so many seconds, or as much again where the broker says something else meanwhile.

    Raises Unanswered, and what the broker says of a queue that is not there, or not to be seen.
    """
    arguments = (0, queue, True, False, False, False, False, None)  # passive is the only flag
    channel.send_method(spec.Queue.Declare, "BsbbbbbF", arguments)
    try:
        return Declared(*channel.wait(spec.Queue.DeclareOk, timeout=within, returns_tuple=True))
    except TimeoutError as error:
        raise Unanswered from error
