"""What is in flight on one confirming channel, and for how long."""

from collections import deque
from collections.abc import Sequence
from math import inf

from outbox_relay.broker.amqp.flight import Flight
from outbox_relay.core.message import Message, Reason, Refusal


class Channel:
    """Its number, the messages in flight on it, and when each batch of them was written."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.flight = Flight()
        self.heard = -inf  # when anything was confirmed or returned on it last
        self._batches: deque[tuple[int, int, float]] = deque()  # last tag, messages, when

    def take_off(self, messages: Sequence[Message], now: float) -> None:
        """These are about to be written, in this order."""
        self.flight.take_off(messages)
        self._batches.append((self.flight.last_tag, len(messages), now))

    def landed(self, now: float) -> list[tuple[float, int]]:
        """Batches that are confirmed to the last message: seconds, and how many messages.

        A batch behind one that gets no answer has landed when its own confirms are there.
        """
        lowest, landed = self.flight.lowest_tag, []
        while self._batches and self._batches[0][0] < lowest:
            _, count, when = self._batches.popleft()
            landed.append((now - when, count))
        for batch in [*self._batches][1:]:
            last, count, when = batch
            if self.flight.is_clear(last - count + 1, last):
                self._batches.remove(batch)
                landed.append((now - when, count))
        return landed

    def waiting(self, now: float) -> float:
        """For how long the oldest batch in flight has waited for its confirms."""
        return now - self._batches[0][2] if self._batches else 0.0

    def hangs(self, now: float, after: float) -> bool:
        """Whether all that is in flight was written so long ago, if anything is."""
        newest = self.flight.newest_tag
        when = next((when for last, _, when in self._batches if last >= newest), now)
        return not self.flight or now - when > after

    def silent(self, now: float, after: float) -> list[Message]:
        """Messages without a confirm for so long, though later ones were confirmed."""
        late = [last for last, _, when in self._batches if now - when > after]
        return self.flight.upto(late[-1]) if late and self.flight.passed_over(late[-1]) else []

    def give_up(self, now: float, timeout: float, heard: float) -> list[Message]:
        """Messages whose confirm is overdue, and is not waited for any longer.

        None where the broker was last `heard` before they were written: then it is silent itself.
        All of them, where later ones were confirmed: then it is their queues that do not answer.
        Where none was, the channel may be stuck behind the queue of the first: only its messages.
        """
        late = [(last, when) for last, _, when in self._batches if now - when > timeout]
        if not late or heard < late[0][1]:
            return []
        upto = late[-1][0]
        if not (overdue := self.flight.unconfirmed()):
            return []
        if self.flight.passed_over(upto):
            return self.flight.give_up(upto)
        return self.flight.give_up(upto, (overdue[0].exchange, overdue[0].routing_key))

    def wait_anew(self, now: float) -> None:
        """Let every wait for a confirm begin anew: the broker had announced a pause."""
        self._batches = deque((last, count, now) for last, count, _ in self._batches)


def unanswered(message: Message, seconds: float) -> Refusal:
    """The refusal of a message for which no confirm has come."""
    return Refusal(message, Reason.UNANSWERED, f"no confirm for {seconds:.0f} s")
