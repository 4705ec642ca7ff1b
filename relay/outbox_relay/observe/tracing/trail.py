"""What the loop notes of traced messages: claimed, published, and how it ended. No I/O, no clock.

A message is traced whose headers name a sampled span. All others cost one search of their headers,
and without tracing, `Untraced`, a call for each batch. Once all that is traced of a batch has
ended, the batch is handed on. Memory is bounded, whatever becomes of messages.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from outbox_relay.core.message import Message, Parking, Reason, Refusal
from outbox_relay.observe.tracing.parent import Parent, may_be_sampled, parent_of

#: The most traced messages that are claimed, or refused and expected again.
MAX_TRACED: Final = 10_000
#: The most that is told of a message's earlier waits.
MAX_HELD: Final = 20
#: Refusals before which nothing was tried: the message only waits.
NOT_TRIED: Final = frozenset(
    {
        Reason.HELD,
        Reason.PAUSED,
        Reason.DEEP,
        Reason.RATED,
        Reason.UNKNOWN_TASK,
        Reason.SUSPECTED,
        Reason.UNDECLARED,
    }
)


class Batch(NamedTuple):
    """Messages that were published together, traced and untraced, and when."""

    number: int
    messages: int
    published: float


class Held(NamedTuple):
    """When a message was put back without an attempt, and why."""

    at: float
    reason: str


class Traced(NamedTuple):
    """A claimed message, without its payload. Times are of the process's monotonic clock."""

    id: int
    slot: int
    parent: Parent
    message_id: str
    task: str
    exchange: str
    routing_key: str
    size: int
    attempts: int
    suspect: bool
    waiting: float  # since when it waited: committed, due, or refused
    held: tuple[Held, ...]
    born: float
    claimed: float
    batch: Batch | None = None  # None: not published, or in quarantine


class Ending(NamedTuple):
    """How an attempt ended: confirmed, or why not."""

    traced: Traced
    at: float
    reason: str = ""  # as a metric has it; empty where it was confirmed
    state: str = ""  # where a refused message went: retry, dead or expired

    @property
    def confirmed(self) -> bool:
        """Whether the broker has it."""
        return not self.reason


#: Why an attempt ended that nobody has said anything about.
CONNECTION_LOST: Final = "connection_lost"


class Untraced:
    """Notes nothing."""

    def claimed(self, messages: Sequence[Message], since: float) -> None:
        """These are ours since then."""

    def published(self, messages: Sequence[Message], now: float) -> None:
        """These were put on the wire together."""

    def confirmed(self, messages: Sequence[Message], now: float) -> None:
        """The broker has these."""

    def parked(self, refused: Sequence[Refusal], parkings: Sequence[Parking], now: float) -> None:
        """The broker would not have these, or was not asked; where each goes stands beside it."""

    def lost(self, now: float) -> None:
        """What is in flight may be there or not, and is nobody's."""


@dataclass(slots=True)
class _Open:
    """A batch, how many traced messages of it are in flight, and how the others ended."""

    left: int = 0
    endings: list[Ending] = field(default_factory=list)


class _Before(NamedTuple):
    """What is remembered of a message that was put back: since when it waits, and what held it."""

    waiting: float
    held: tuple[Held, ...]


class Trail(Untraced):
    """Notes what is traced, and hands endings on: those of a batch together."""

    def __init__(self, hand_on: Callable[[Sequence[Ending]], None]) -> None:
        self._hand_on = hand_on
        self._traced: dict[int, Traced] = {}
        self._before: dict[int, _Before] = {}
        self._batches: dict[int, _Open] = {}
        self._numbers = 0

    def claimed(self, messages: Sequence[Message], since: float) -> None:
        """These are ours since then."""
        for message in messages:
            if may_be_sampled(message.headers) and (parent := parent_of(message.headers)):
                self._claimed(message, parent, since)

    def _claimed(self, message: Message, parent: Parent, since: float) -> None:
        self._drop(message.id)
        if len(self._traced) >= MAX_TRACED:
            self._drop(next(iter(self._traced)))
        before = self._before.pop(message.id, None)
        self._traced[message.id] = Traced(
            message.id,
            message.slot,
            parent,
            message.message_id,
            message.task,
            message.exchange,
            message.routing_key,
            len(message.body),
            message.attempts,
            message.suspect,
            waiting=before.waiting if before else message.born,
            held=before.held if before else (),
            born=message.born,
            claimed=since,
        )

    def published(self, messages: Sequence[Message], now: float) -> None:
        """These were put on the wire together."""
        traced = self._of(messages)
        if not traced:
            return
        self._numbers += 1
        batch = Batch(self._numbers, len(messages), now)
        self._batches[batch.number] = _Open(left=len(traced))
        for each in traced:
            self._traced[each.id] = each._replace(batch=batch)

    def confirmed(self, messages: Sequence[Message], now: float) -> None:
        """The broker has these."""
        for each in self._of(messages):
            self._end(Ending(each, now))

    def parked(self, refused: Sequence[Refusal], parkings: Sequence[Parking], now: float) -> None:
        """The broker would not have these, or was not asked; where each goes stands beside it."""
        if not self._traced:
            return
        for refusal, parking in zip(refused, parkings, strict=True):
            if traced := self._traced.get(refusal.message.id):
                self._parked(traced, refusal.reason, parking.state, now)

    def _parked(self, traced: Traced, reason: Reason, state: str, now: float) -> None:
        if reason in NOT_TRIED:
            held = (*traced.held, Held(now, str(reason)))[-MAX_HELD:]
            self._remember(traced.id, _Before(traced.waiting, held))
            self._drop(traced.id)
            return
        if state == "retry":
            self._remember(traced.id, _Before(now, ()))
        self._end(Ending(traced, now, str(reason), state))

    def lost(self, now: float) -> None:
        """What is in flight may be there or not, and is nobody's."""
        for each in list(self._traced.values()):
            if each.batch:
                self._remember(each.id, _Before(now, ()))
                self._end(Ending(each, now, CONNECTION_LOST))
            else:
                self._drop(each.id)

    def _of(self, messages: Iterable[Message]) -> list[Traced]:
        traced = self._traced
        return (
            [traced[message.id] for message in messages if message.id in traced] if traced else []
        )

    def _remember(self, id_: int, before: _Before) -> None:
        while len(self._before) >= MAX_TRACED:
            del self._before[next(iter(self._before))]
        self._before[id_] = before

    def _end(self, ending: Ending) -> None:
        if ending.traced.batch is None:
            del self._traced[ending.traced.id]
            self._hand_on([ending])
            return
        self._batches[ending.traced.batch.number].endings.append(ending)
        self._drop(ending.traced.id)

    def _drop(self, id_: int) -> None:
        """Forget a message; a batch of which nothing is left is handed on."""
        traced = self._traced.pop(id_, None)
        if traced is None or traced.batch is None:
            return
        batch = self._batches[traced.batch.number]
        batch.left -= 1
        if batch.left == 0:
            del self._batches[traced.batch.number]
            if batch.endings:
                self._hand_on(batch.endings)
