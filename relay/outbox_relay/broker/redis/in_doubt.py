"""Finds out, after a lost connection, which of the batches in flight had arrived.

Every batch puts its number into a marker, in the same transaction as its messages: the marker holds
it if and only if they are there. The next connection reads the marker, and what has arrived is
confirmed instead of published twice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Final

from outbox_relay.broker.redis import resp

#: How long it is remembered what has arrived: until its rows are claimed again, which is soon. Not
#: longer, because a person may then ask to have them published again.
REMEMBERED_SECONDS: Final = 30.0
#: How long the server keeps a marker that nobody writes to, in seconds. After a longer outage,
#: batches in doubt may be published twice.
MARKER_SECONDS: Final = 86_400


#: The id of a message's row, and the message id.
Ids = tuple[int, str]


@dataclass(frozen=True, slots=True)
class BatchInDoubt:
    """A batch whose replies were lost: its number, its messages, and the lists they went to.

    Both ids of a message: after a fail-over of the database another may have that of its row.
    """

    number: int
    ids: tuple[Ids, ...]
    lists: set[bytes]


class InDoubt:
    """The batches that earlier connections left in doubt. Outlives the connections of a broker."""

    def __init__(self) -> None:
        self._markers: dict[bytes, list[BatchInDoubt]] = {}
        self._arrived: set[Ids] = set()
        self._until = 0.0

    def remember(self, marker: bytes, in_doubt: list[BatchInDoubt]) -> None:
        """A connection was lost with these batches in flight."""
        if in_doubt:
            self._markers[marker] = in_doubt

    def questions(self) -> list[bytes]:
        """The commands whose replies `answered` understands."""
        return [
            question
            for marker, in_doubt in self._markers.items()
            for question in (
                resp.command(b"SMEMBERS", marker),
                *(resp.command(b"TYPE", key) for key in _keys(in_doubt)),
            )
        ]

    def answered(self, replies: Iterable[object], now: float) -> int:
        """Learn from the replies what has arrived; returns how many messages."""
        answers = iter(replies)
        if now > self._until:
            self._arrived.clear()
        for in_doubt in self._markers.values():
            numbers = next(answers)
            # A command in a transaction may fail by itself, where a key is no list.
            sound = {key for key in _keys(in_doubt) if next(answers) in (b"list", b"none")}
            for doubt in in_doubt:
                if _holds(numbers, doubt.number) and doubt.lists <= sound:
                    self._arrived.update(doubt.ids)
        self._markers.clear()
        self._until = now + REMEMBERED_SECONDS
        return len(self._arrived)

    def arrived(self, ids: Ids, now: float) -> bool:
        """Whether a message has arrived already; true once."""
        if ids not in self._arrived:
            return False
        self._arrived.remove(ids)
        return now < self._until

    def untold(self, ids: Iterable[Ids], now: float) -> None:
        """Remember these as arrived: they were confirmed too late to be returned by a poll."""
        if now > self._until:
            self._arrived.clear()
        self._arrived.update(ids)
        self._until = now + REMEMBERED_SECONDS


def new_marker(prefixed: Callable[[str], bytes]) -> bytes:
    """The key of a marker for one connection."""
    return prefixed(f"outbox-relay.{token_hex(8)}")


def mark(marker: bytes, number: int, spent: Sequence[int]) -> list[bytes]:
    """Commands that put a batch's number into the marker, and take out those of settled ones."""
    commands = [resp.command(b"SADD", marker, b"%d" % number)]
    if spent:
        commands.append(resp.command(b"SREM", marker, *(b"%d" % each for each in spent)))
    commands.append(resp.command(b"EXPIRE", marker, b"%d" % MARKER_SECONDS))
    return commands


def _keys(in_doubt: list[BatchInDoubt]) -> list[bytes]:
    return sorted({key for doubt in in_doubt for key in doubt.lists})


def _holds(numbers: object, number: int) -> bool:
    return isinstance(numbers, list | set) and b"%d" % number in numbers
