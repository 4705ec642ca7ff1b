"""Sees to it that what messages are published to exists: declared as Celery would have declared it.

Messages whose queue is not known to exist wait while it is declared; all others pass at once. Where
that takes long, they wait in a room of bounded size, and those beyond it are put off. So a queue
that never answers keeps nobody waiting but the messages that need it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, NamedTuple

from outbox_relay.broker.amqp.connect import BackgroundOpening
from outbox_relay.broker.amqp.connection import DEFAULT_FRAME_MAX
from outbox_relay.broker.amqp.declarer import Declarer
from outbox_relay.broker.amqp.errand import Need
from outbox_relay.broker.amqp.known import Known
from outbox_relay.broker.amqp.methods import Step, look_for, look_for_queue, steps_for
from outbox_relay.broker.entities import described
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.core.pauses import SEPARATOR
from outbox_relay.errors import Unpublishable

_need: Callable[[Message], Need] = attrgetter("declare", "exchange")

#: How long messages may wait beyond the room, in seconds. Nearly all declarations take less, and to
#: put off what a backlog brings meanwhile would cost more. The relay's window bounds it.
PATIENCE: Final = 0.25
#: How many messages may wait for longer, and how large they may be together, in bytes.
MAX_WAITING: Final = 2000
MAX_WAITING_BYTES: Final = 16 << 20
#: How long a message may wait, in seconds: for less than what its claim lasts.
MAX_STAY: Final = 5.0


class Prepared(NamedTuple):
    """Messages that can be published now, and those that cannot be at all, or not yet."""

    ready: list[Message]
    refused: list[Refusal]


@dataclass(slots=True)
class _Party:
    """The messages that wait for the same, and since when the first of them does."""

    since: float
    messages: list[Message] = field(default_factory=list)


class Topology:
    """Remembers what is known to exist on this broker, and has the rest declared."""

    def __init__(
        self,
        url: str,
        *,
        declare: bool,
        room: int = MAX_WAITING,
        stay: float = MAX_STAY,
    ) -> None:
        self._declare = declare
        self._room, self._stay = room, stay
        self._known = Known()
        self._declarer = Declarer(lambda: BackgroundOpening(url))
        self._parties: dict[Need, _Party] = {}  # oldest first
        self._waiting = self._waiting_bytes = 0

    @property
    def busy(self) -> bool:
        """Whether anything is being declared."""
        return self._declarer.busy

    def hangs(self, now: float) -> bool:
        """Whether nothing but late answers is waited for, if anything is."""
        return self._declarer.hangs(now)

    @property
    def waiting(self) -> int:
        """How many messages wait for a declaration."""
        return self._waiting

    @property
    def waiting_bytes(self) -> int:
        """The size of these."""
        return self._waiting_bytes

    def waiting_messages(self) -> list[Message]:
        """All of them."""
        return [message for party in self._parties.values() for message in party.messages]

    def prepare(self, messages: Sequence[Message], now: float) -> Prepared:
        """Return which of these can be published now, and which are refused; the others wait."""
        if self._known.has_all(map(_need, messages)):
            return Prepared([*messages], [])
        prepared = Prepared([], [])
        for message in messages:
            need = _need(message)
            if need in self._known:
                prepared.ready.append(message)
            else:
                self._begin(message, now, prepared)
        return prepared

    def step(self, now: float) -> Prepared:
        """Return which of those that waited can be published by now, and which are refused."""
        prepared = Prepared([], [])
        for verdict in self._declarer.step(now):
            messages = self._leave(verdict.need)
            if verdict.reason is None:
                for known in {verdict.need, *map(_need, messages)}:
                    self._known.add(known)
                prepared.ready.extend(messages)
            else:
                prepared.refused.extend(
                    Refusal(message, verdict.reason, verdict.detail) for message in messages
                )
        while self._parties and (need := self._overstays(now)):
            self._declarer.cancel(need)
            prepared.refused.extend(map(_another_time, self._leave(need)))
        if self._crowded:
            prepared.refused.extend(map(_another_time, self._thin_out(now)))
        return prepared

    def _overstays(self, now: float) -> Need | None:
        """What the oldest party waits for, if that has been for too long."""
        need, party = next(iter(self._parties.items()))
        return need if now - party.since > self._stay else None

    def look_again(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """These came back from where they should have found a queue: see what became of it.

        It may have been deleted, and is declared anew; or the node that has it is down, which is no
        fault of theirs. They wait for the answer; returned is what is refused at once.
        """
        prepared = Prepared([], [])
        for message in messages:
            self.forget(message)
            place = f"{message.exchange}{SEPARATOR}{message.routing_key}"
            self._begin(message, now, prepared, (message.declare, place))
        return prepared.refused

    def forget(self, message: Message) -> None:
        """Declare this again next time: the broker says that it is gone."""
        self._known.discard(_need(message))

    def close(self) -> None:
        """Declare no more; what waits is the caller's."""
        self._declarer.close()

    def _begin(
        self, message: Message, now: float, prepared: Prepared, returned: Need | None = None
    ) -> None:
        """Let it wait for what it needs, and have that declared if it is the first.

        If it was `returned`, its queue is looked for as well.
        """
        need = returned or _need(message)
        if need in self._parties:
            self._wait(message, need, now, prepared)
            return
        try:
            steps = self._steps(message)
            if returned and not message.exchange:
                steps.append(look_for_queue(message.routing_key))
        except (ValueError, Unpublishable) as error:
            prepared.refused.append(Refusal(message, Reason.INVALID, str(error)))
            return
        if not steps:
            self._known.add(need)
            prepared.ready.append(message)
        else:
            self._parties[need] = _Party(now)
            self._declarer.begin(need, steps)
            self._wait(message, need, now, prepared)

    def _steps(self, message: Message) -> list[Step]:
        """What the broker is to be asked. Raises ValueError or Unpublishable over nonsense."""
        entities = described(message.declare)
        steps = steps_for(entities, DEFAULT_FRAME_MAX) if self._declare else []
        return [*steps, look_for(message.exchange)] if message.exchange else steps

    def _wait(self, message: Message, need: Need, now: float, prepared: Prepared) -> None:
        party = self._parties[need]
        if self._is_slow(party, now) and not self._has_room(message, len(party.messages)):
            prepared.refused.append(_another_time(message))
            return
        party.messages.append(message)
        self._waiting += 1
        self._waiting_bytes += message.size

    def _is_slow(self, party: _Party, now: float) -> bool:
        return now - party.since > PATIENCE

    def _has_room(self, message: Message, beside: int) -> bool:
        """Whether it can wait `beside` others of its party, which leaves as much room to others."""
        free = self._room - self._waiting
        return free > beside and self._waiting_bytes + message.size <= MAX_WAITING_BYTES

    @property
    def _crowded(self) -> bool:
        return self._waiting > self._room or self._waiting_bytes > MAX_WAITING_BYTES

    def _thin_out(self, now: float) -> list[Message]:
        """Half of each party that has waited for long, the largest first, until all have room."""
        slow = [(n, party) for n, party in self._parties.items() if self._is_slow(party, now)]
        out: list[Message] = []
        for need, party in sorted(slow, key=lambda each: len(each[1].messages), reverse=True):
            if not self._crowded:
                break
            if kept := len(party.messages) // 2:
                leaving, party.messages = party.messages[kept:], party.messages[:kept]
                self._count_out(leaving)
            else:
                self._declarer.cancel(need)
                leaving = self._leave(need)
            out += leaving
        return out

    def _leave(self, need: Need) -> list[Message]:
        party = self._parties.pop(need, None)
        if party is None:
            return []
        self._count_out(party.messages)
        return party.messages

    def _count_out(self, messages: Sequence[Message]) -> None:
        self._waiting -= len(messages)
        self._waiting_bytes -= sum(message.size for message in messages)


def _another_time(message: Message) -> Refusal:
    return Refusal(message, Reason.UNDECLARED, "others were declared first")
