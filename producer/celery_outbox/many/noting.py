"""Notes how a send was carried out, for messages that are to follow its example."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from celery_outbox.message import Message


class Sent(NamedTuple):
    """One send that was stored."""

    #: As Celery made it, before it was serialised.
    body: Any
    stored: Message
    #: Where it went: the Decision of dispatch.py.
    decision: Any


_noted: Final[ContextVar[list[Sent] | None]] = ContextVar("celery_outbox_noted", default=None)


@contextmanager
def noting() -> Iterator[list[Sent]]:
    """Have the sends inside noted."""
    found: list[Sent] = []
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


def note(sent: Sent) -> None:
    """Note a send, if anybody wants to know."""
    if (noted := _noted.get()) is not None:
        noted.append(sent)
