"""Where messages made by a pattern go: each at once, unless nothing can come between several.

In a transaction it counts what happens between two messages: a savepoint, a statement, another
send. A target that buffers puts each message in its place by itself. For others each message is
stored as it is made, unless none of the caller's code runs between them, or there is no
transaction: then a portion is stored at a time, and before anything else that is sent.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Final, Protocol, cast

from celery_outbox.message import Alike, Filled, Message, size_of
from celery_outbox.statements.commands import MAX_BYTES, PORTION

#: Iterators that run no code of anybody's: what they yield was there before.
INERT: Final[frozenset[type]] = frozenset(
    type(iter(each)) for each in cast(Any, ([], (), set(), {}, {}.values(), {}.items()))
)


class Storing(Protocol):
    """Takes messages that follow one, in the order of sending."""

    def put(self, filled: Filled) -> None:
        """Take a message."""

    def finish(self) -> None:
        """Store what was taken and nothing else would store."""


class Buffered:
    """Messages for a target that buffers."""

    def __init__(
        self, like: Message, put: Callable[[Alike], object], flush: Callable[[], object]
    ) -> None:
        self._like = like
        self._put = put
        self._flush = flush
        self._last: Alike | None = None

    def put(self, filled: Filled) -> None:
        """Add to the buffer. Raises OutboxClosed or UnusableTarget.

        Whatever the connection was used for meanwhile has emptied the buffer, and the target is
        asked again whether it can take messages.
        """
        if self._last is None or not self._last.grow(filled):
            self._last = Alike(self._like, [filled])
            self._put(self._last)

    def finish(self) -> None:
        """Have inserted what no block inserts as it ends."""
        self._flush()


class Place(Protocol):
    """What takes messages and does not buffer them, or not always."""

    def is_alone(self) -> bool:
        """Tell whether what is stored now is in a transaction of its own."""

    def store(self, message: Alike) -> object:
        """Store messages."""

    def store_apart(self, message: Alike) -> object:
        """Store messages in a transaction that nothing in progress can roll back."""

    def put_many(self, message: Alike) -> object:
        """Take messages as a part of the transaction in progress."""

    def flush(self) -> object:
        """Store what was taken and is buffered."""


class Joined:
    """The transaction that a target is in."""

    def __init__(self, put_many: Callable[[Alike], object], flush: Callable[[], object]) -> None:
        self.put_many = self.store = self.store_apart = put_many
        self.flush = flush

    def is_alone(self) -> bool:
        """Tell that it is not."""
        return False


class Portions:
    """Messages for what does not always buffer."""

    def __init__(self, like: Message, place: Place, *, inert: bool) -> None:
        self._like = like
        self._place = place
        #: Whether none of the caller's code runs between two messages.
        self._inert = inert
        self._in_transaction = Buffered(like, place.put_many, place.flush)
        self._filled: list[Filled] = []
        self._bytes = 0
        #: Why some were not stored: to be told again, as it may have been code of the caller's
        #: that made them be stored, and it need not have passed it on.
        self._failure: Exception | None = None

    def put(self, filled: Filled) -> None:
        """Store the message, or keep it until the portion is full."""
        if not (self._inert or self._place.is_alone()):
            self._store_kept()
            self._in_transaction.put(filled)
            return
        self._filled.append(filled)
        self._bytes += size_of(filled)
        if len(self._filled) >= PORTION or self._bytes >= MAX_BYTES:
            self._store_kept()

    def finish(self) -> None:
        """Store what is not stored yet."""
        self._store_kept()
        self._in_transaction.finish()

    def _store_kept(self) -> None:
        """Store what is kept: made outside of a transaction, it is not stored in one."""
        if self._failure is not None:
            raise self._failure
        taken, self._filled, self._bytes = self._filled, [], 0
        if not taken:
            return
        store = self._place.put_many if self._inert else self._place.store_apart
        if self._place.is_alone():
            store = self._place.store
        try:
            store(Alike(self._like, taken))
        except Exception as error:
            self._failure = error
            raise


#: What is to be finished before anything else is stored, outermost first, and in which thread.
_unfinished: Final[ContextVar[tuple[tuple[int, Callable[[], None]], ...]]] = ContextVar(
    "celery_outbox_unfinished", default=()
)


@contextmanager
def unfinished(finish: Callable[[], None]) -> Iterator[None]:
    """Have `finish` called before anything else is stored that is sent inside."""
    token = _unfinished.set((*_unfinished.get(), (get_ident(), finish)))
    try:
        yield
    finally:
        _unfinished.reset(token)


def finish_earlier() -> None:
    """Have stored what was sent before the message that is about to be stored."""
    for thread, finish in _unfinished.get():
        if thread == get_ident():  # contexts are copied into threads
            finish()
