"""How messages get into a transaction: what targets buffer, and which statements store that.

Free of I/O: a target executes the statements by the means of its library.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, Final, NamedTuple, cast

from celery_outbox.message import Alike, Message, Parcel
from celery_outbox.statements.dedup import claims, dropped
from celery_outbox.statements.insert import CLAIM_DEDUP, Style, insert, insert_alike, statement

Rows = list[tuple[Any, ...]]
#: Messages that are buffered at most, where they can be inserted without waiting for an `await`.
PORTION: Final = 1000
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


def is_enough(entries: deque[Entry], added: Parcel) -> bool:
    """Tell whether so much is buffered that it should be stored rather than kept in memory."""
    return len(entries) >= PORTION or isinstance(added, Alike)


def take_all(entries: deque[Entry]) -> list[Entry]:
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
    for alike, group in groupby(entries, lambda each: isinstance(each.message, Alike)):
        if alike:
            for each in group:
                yield insert_alike(schema, cast(Alike, each.message), style)
        else:
            yield from _one_by_one(schema, list(group), style)


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
