"""Declares on a connection of its own, many needs at a time, each on a channel of its own.

Nothing here waits. So a queue that never answers holds up only its own errand, and what the broker
closes, a channel or this connection, carries no messages.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from struct import Struct
from typing import Final

import amqp

from outbox_relay.broker.amqp.connection import AmqpConnection
from outbox_relay.broker.amqp.encode import channel_closed_frame, method_frame
from outbox_relay.broker.amqp.errand import Errand, Need, Verdict
from outbox_relay.broker.amqp.inbound import Answered, Closed, Inbound
from outbox_relay.broker.amqp.methods import Step
from outbox_relay.broker.opening import Opening
from outbox_relay.core.message import Reason
from outbox_relay.errors import BrokerLost

#: How long the answer to one step may take, in seconds. A queue whose process hangs never answers.
ANSWER_SECONDS: Final = 2.0
#: A new errand begins while so many others are out; one that has waited for longer than SLOW
#: seconds does not count among them, but among all that may be out.
MAX_QUICK: Final = 32
SLOW: Final = 0.25
MAX_OUT: Final = 256
#: How long the connection is kept when nothing is to be declared, in seconds.
LINGER: Final = 5.0
#: How long to wait after it could not be opened, in seconds.
REOPEN_AFTER: Final = 1.0
#: How often it is checked whether answers are overdue, in seconds.
CHECK_EVERY: Final = 0.05

_open: Final = Struct(">HHB").pack(20, 10, 0)


class Declarer:
    """Runs errands; `step` returns those that have ended."""

    def __init__(self, begin_opening: Callable[[], Opening[amqp.Connection]]) -> None:
        self._begin_opening = begin_opening
        self._opening: Opening[amqp.Connection] | None = None
        self._connection: AmqpConnection | None = None
        self._inbound = Inbound()
        self._queue: OrderedDict[Need, Errand] = OrderedDict()
        self._out: dict[int, Errand] = {}  # by channel
        self._idle: list[int] = []  # open channels
        self._unopened: list[int] = []
        self._reopen_at = -inf
        self._used = self._checked = 0.0

    @property
    def busy(self) -> bool:
        """Whether any errand has not ended."""
        return bool(self._queue or self._out)

    def hangs(self, now: float) -> bool:
        """Whether it only waits, for answers that are late."""
        return not self._queue and all(now - each.since > SLOW for each in self._out.values())

    def begin(self, need: Need, steps: Sequence[Step]) -> None:
        """Run this errand as soon as there is room for it."""
        self._queue[need] = Errand(need, steps)

    def cancel(self, need: Need) -> None:
        """Nobody waits for it any more; if it is out, it goes on."""
        self._queue.pop(need, None)

    def step(self, now: float) -> list[Verdict]:
        """Move on, without waiting."""
        if not self.busy:
            if self._connection is not None and now - self._used > LINGER:
                self.close()
            return []
        self._used = now
        try:
            if self._connection is None and not self._opened(now):
                return []
            self._send(now)
            return self._listen(now) + self._overdue(now)
        except BrokerLost as error:
            return self._lost(error)

    def close(self) -> None:
        """Drop the connection without a handshake, which could hang on a blocked broker."""
        if self._connection is not None:
            self._connection.close()
        elif self._opening is not None:
            self._opening.abandon()
        self._connection = self._opening = None
        self._out, self._idle, self._unopened = {}, [], []

    def _opened(self, now: float) -> bool:
        if self._opening is None:
            if now < self._reopen_at:
                return False
            self._reopen_at = now + REOPEN_AFTER
            self._opening = self._begin_opening()
        if (connection := self._opening.result()) is None:
            return False
        self._opening = None
        self._connection, self._inbound = AmqpConnection(connection), Inbound()
        self._unopened = list(range(self._connection.channel_max, 0, -1))
        self._reopen_at = -inf
        return True

    def _send(self, now: float) -> None:
        """Begin errands as far as there is room."""
        assert self._connection is not None
        quick = sum(now - errand.since < SLOW for errand in self._out.values())
        room = min(MAX_QUICK - quick, MAX_OUT - len(self._out))
        frames: list[bytes] = []
        while room > 0 and self._queue and (self._idle or self._unopened):
            if self._out and (self._has_loners or next(iter(self._out.values())).alone):
                break  # over which of several a connection is closed, nobody says
            _, errand = self._queue.popitem(last=False)
            frames.append(self._sent(errand, now))
            room -= 1
        if frames:
            self._connection.link.send(b"".join(frames))
        elif not (self._out or self._idle or self._unopened):
            raise BrokerLost("every channel is in use by a declaration without an answer")

    @property
    def _has_loners(self) -> bool:
        """Whether an errand is to run while no other does: those are at the head."""
        return bool(self._queue) and next(iter(self._queue.values())).alone

    def _sent(self, errand: Errand, now: float) -> bytes:
        frames = b""
        if self._idle:
            errand.channel = self._idle.pop()
        else:
            errand.channel = self._unopened.pop()
            frames = method_frame(errand.channel, _open)
        self._out[errand.channel] = errand
        errand.since = now
        return frames + method_frame(errand.channel, errand.step.payload)

    def _listen(self, now: float) -> list[Verdict]:
        assert self._connection is not None
        verdicts: list[Verdict] = []
        frames: list[bytes] = []
        for event in self._inbound.feed(self._connection.link.pump(0)):
            number = self._inbound.channel
            match event:
                case Answered():
                    self._idle.append(number)  # even if nobody has waited for so long
                    if errand := self._out.pop(number, None):
                        self._go_on(errand, errand.answered(), verdicts, frames, now)
                case Closed(code, text, False):
                    frames.append(channel_closed_frame(number))
                    self._unopened.insert(0, number)
                    if errand := self._out.pop(number, None):
                        verdict = errand.channel_closed(code, text)
                        self._go_on(errand, verdict, verdicts, frames, now)
                case Closed(code, text, True):
                    return verdicts + self._closed(code, text)
        if frames:
            self._connection.link.send(b"".join(frames))
        return verdicts

    def _go_on(
        self,
        errand: Errand,
        verdict: Verdict | None,
        verdicts: list[Verdict],
        frames: list[bytes],
        now: float,
    ) -> None:
        """Take an errand's next step, unless it has ended."""
        if verdict is not None:
            verdicts.append(verdict)
        else:
            frames.append(self._sent(errand, now))

    def _overdue(self, now: float) -> list[Verdict]:
        """Give up what is not answered; the channel waits for that answer, and is used no more."""
        if now - self._checked < CHECK_EVERY:
            return []
        self._checked = now
        late = [each for each in self._out.values() if now - each.since > ANSWER_SECONDS]
        for errand in late:
            del self._out[errand.channel]
        return [errand.unanswered(ANSWER_SECONDS) for errand in late]

    def _closed(self, code: int, text: str) -> list[Verdict]:
        """The broker closed the connection over one of the errands that are out."""
        out = list(self._out.values())
        self.close()
        if len(out) != 1:
            for errand in reversed(out):
                errand.alone = True
                self._again(errand)
            return []
        verdict = out[0].connection_closed(code, text)
        if verdict is None:
            self._again(out[0])
        return [verdict] if verdict else []

    def _lost(self, error: BrokerLost) -> list[Verdict]:
        """The connection broke, or could not be opened."""
        if self._connection is None:
            self._opening = None
            ended = [Verdict(need, Reason.UNANSWERED, str(error)) for need in self._queue]
            self._queue.clear()
            return ended
        out = list(self._out.values())
        self.close()
        verdicts = []
        for errand in out:
            if (verdict := errand.broken(str(error))) is not None:
                verdicts.append(verdict)
            else:
                self._again(errand)
        return verdicts

    def _again(self, errand: Errand) -> None:
        self._queue[errand.need] = errand
        self._queue.move_to_end(errand.need, last=False)
