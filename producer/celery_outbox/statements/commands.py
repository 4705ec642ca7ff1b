"""How messages get into a transaction: what targets buffer, and which statements store that.

Free of I/O: a target executes the statements by the means of its library.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from itertools import chain, groupby
from threading import RLock
from typing import Any, Final, NamedTuple, cast

from celery_outbox.message import Alike, Filled, Message, Parcel, size_of
from celery_outbox.statements.dedup import claims, dropped
from celery_outbox.statements.insert import CLAIM_DEDUP, Style, insert, insert_alike, statement

Rows = list[tuple[Any, ...]]
#: Messages that are buffered at most, and their bytes, where they can be inserted without waiting
#: for an `await`: what comes on top of that is stored.
PORTION: Final = 1000
MAX_BYTES: Final = 4_194_304
#: A statement and its parameters.
Command = tuple[str, tuple[Any, ...]]
#: Commands one by one, each of which is sent the rows that it returned.
Commands = Generator[Command, Rows | None, None]


class Outcome:
    """Which message is pending after a send: the one sent, or another with its `dedup_key`.

    Known as soon as the message's turn to be stored has come: when the send returns, except where
    code that sends cannot wait for an answer (asyncio). A result that follows it gets its id then.
    """

    __slots__ = ("_result", "pending_id")

    def __init__(self, message: Parcel) -> None:
        self.pending_id = message.message_id
        self._result: Any = None

    def drop_for(self, pending_id: str) -> None:
        """Take note that the message was dropped, as the one with this id is pending."""
        self.pending_id = pending_id
        if self._result is not None:
            self._result.id = pending_id

    def share_id_with(self, result: Any) -> None:
        """Give Celery's result of the send the id of the message that is pending, now and later."""
        self._result = result  # first: another thread may be storing the message
        if result.id != self.pending_id:
            result.id = self.pending_id


class Entry(NamedTuple):
    """A message, or several alike, put for the outbox of `schema`, and what becomes of it."""

    schema: str
    message: Parcel
    outcome: Outcome

    @classmethod
    def of(cls, schema: str, message: Parcel) -> "Entry":
        """Return a message with its outcome, as far as that is known yet."""
        return cls(schema, message, Outcome(message))


class Entries(deque[Entry]):
    """What is buffered, in the order of sending. Any thread may add and take."""

    def __init__(self) -> None:
        super().__init__()
        #: Reentrant: a signal's handler or a finaliser may send at any moment.
        self._lock = RLock()
        self._messages = 0
        self._bytes = 0

    def append(self, entry: Entry) -> None:
        """Add a message, or several alike."""
        messages, size = _size_of(entry.message)
        with self._lock:
            super().append(entry)
            self._messages += messages
            self._bytes += size
            if isinstance(entry.message, Alike):
                entry.message.buffer = self

    def extend_last(self, alike: Alike, filled: Filled) -> bool:
        """Add a message to those that came last, if these are they, and it is not enough yet."""
        size = size_of(filled)
        with self._lock:
            if not self or self[-1].message is not alike or self.are_enough(1, size):
                return False
            alike.filled.append(filled)
            self._messages += 1
            self._bytes += size
            return True

    def popleft(self) -> Entry:
        """Take what came first. Raises IndexError where nothing is left."""
        with self._lock:
            entry = super().popleft()
            if not self:
                self._messages = self._bytes = 0
            return entry

    def remove(self, entry: Entry) -> None:
        """Forget a message. Raises ValueError where it was taken."""
        with self._lock:
            super().remove(entry)
            messages, size = _size_of(entry.message)
            self._messages -= messages
            self._bytes -= size

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            super().clear()
            self._messages = self._bytes = 0

    def are_enough(self, more: int = 0, size: int = 0) -> bool:
        """Tell whether so much is buffered that it should be stored rather than kept in memory.

        Or would be with that many more messages, of that size.
        """
        return self._messages + more >= PORTION or self._bytes + size >= MAX_BYTES


def _size_of(parcel: Parcel) -> tuple[int, int]:
    """Return how many messages these are, and their bytes."""
    if isinstance(parcel, Alike):
        return len(parcel.filled), sum(map(size_of, parcel.filled))
    return 1, size_of(parcel)


def take_all(entries: Entries) -> list[Entry]:
    """Empty a buffer, one by one, as other threads may add and take meanwhile."""
    taken = []
    with suppress(IndexError):
        while True:
            taken.append(entries.popleft())
    return taken


def commands(schema: str, entries: Sequence[Entry], style: Style = Style.PSYCOPG) -> Commands:
    """Yield what stores messages in the outbox of `schema`: all of it in one transaction.

    What is dropped is noted in its outcome.
    """
    for like, group in groupby(entries, _like):
        if like is None:
            yield from _one_by_one(schema, list(group), style)
        else:
            parcels = (cast(Alike, each.message).filled for each in group)
            yield insert_alike(schema, like, chain.from_iterable(parcels), style)


def _like(entry: Entry) -> Message | None:
    """Return what a message follows, if it was made like another."""
    return entry.message.like if isinstance(entry.message, Alike) else None


def _one_by_one(schema: str, entries: Sequence[Entry], style: Style) -> Commands:
    messages = [cast(Message, each.message) for each in entries]
    keys, ids = claims(messages)
    if keys:
        rows = yield statement(CLAIM_DEDUP, schema, style), (keys, ids)
        others = dropped(messages, keys, [pending for (pending,) in rows or ()])
        for position, pending_id in others.items():
            entries[position].outcome.drop_for(pending_id)
        messages = [each for position, each in enumerate(messages) if position not in others]
    if messages:
        yield insert(schema, messages, style)


def next_command(commands: Commands, rows: Rows | None) -> Command | None:
    """Return what to execute after the command that returned `rows`, the first after None."""
    try:
        return commands.send(rows)
    except StopIteration:
        return None


def execute_all(commands: Commands, execute: Callable[[str, Any], Rows]) -> None:
    """Have each command executed, as `execute(text, parameters)`."""
    rows = None
    while command := next_command(commands, rows):
        rows = execute(*command)
