"""Relays and databases with one mistake each, as real ones have had: the model notices them all.

Each is a patch that lasts as long as its block.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from math import inf
from typing import Final
from unittest.mock import patch

from outbox_relay.broker.amqp import declarer
from outbox_relay.broker.amqp.flight import Flight
from outbox_relay.broker.amqp.inbound import Confirm
from outbox_relay.broker.amqp.line import Line
from outbox_relay.broker.amqp.publisher import AmqpPublisher
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.core import decide as core
from outbox_relay.core.claim import ClaimedRow, Turn
from outbox_relay.core.cursor import Cursor
from outbox_relay.core.message import Message, Outcomes, Parking, Reason, Refusal
from outbox_relay.core.pauses import Route
from outbox_relay.errors import BrokerLost
from outbox_relay.loop.cycle import Cycle
from outbox_relay.loop.relay import Relay
from tests.relay.model.database import ModelDatabase, Parked, Ready


def mark_before_confirm() -> AbstractContextManager[object]:
    """What has been written to the socket counts as sent."""
    publish = AmqpPublisher.publish

    def publish_and_mark(self: AmqpPublisher, messages: Sequence[Message]) -> list[Refusal]:
        refused = publish(self, messages)
        kept = {refusal.message.id for refusal in refused}
        vars(self)["written"] = [m for m in messages if m.id not in kept]
        return refused

    poll = AmqpPublisher.poll

    def poll_and_mark(self: AmqpPublisher, timeout: float) -> Outcomes:
        outcomes = poll(self, timeout)
        written = vars(self).pop("written", [])
        return Outcomes([*outcomes.confirmed, *written], outcomes.refused, outcomes.latencies)

    return patch.multiple(AmqpPublisher, publish=publish_and_mark, poll=poll_and_mark)


def untagged_confirms() -> AbstractContextManager[object]:
    """Any confirm is taken for the oldest message's."""
    confirmed = Flight.confirmed

    def oldest(self: Flight, event: Confirm, into: list[Message], refused: list[Refusal]) -> None:
        confirmed(self, event._replace(tag=self.lowest_tag), into, refused)

    return patch.object(Flight, "confirmed", oldest)


def attempts_burned_by_outage() -> AbstractContextManager[object]:
    """What was in flight when the broker went away counts as refused."""
    lose_broker = Relay._lose_broker

    def lose(self: Relay, error: BrokerLost) -> None:
        if self._publisher:
            unconfirmed = self._publisher.unconfirmed()
            refused = [Refusal(m, Reason.REJECTED, "lost") for m in unconfirmed]
            self._cycle._refused.add(refused, 0.0)
        lose_broker(self, error)

    return patch.object(Relay, "_lose_broker", lose)


def unfenced_failure_write() -> AbstractContextManager[object]:
    """A refusal is written down whoever holds the row by now."""

    def park(self: ModelDatabase, parkings: Sequence[Parking]) -> set[int]:
        for parking in parkings:
            self.ready.pop(parking.message.id, None)
            self.parked[parking.message.id] = Parked(
                parking.state, self.now + parking.delay, parking.attempts, parking.suspicion
            )
        return set()

    return patch.object(ModelDatabase, "park", park)


def no_suspect_isolation() -> AbstractContextManager[object]:
    """A channel that was closed over a message is an outage like any other."""
    broker_lost = Cycle.broker_lost
    return patch.object(Cycle, "broker_lost", lambda self, suspects: broker_lost(self, []))


def lease_without_end() -> AbstractContextManager[object]:
    """What a dead relay held, it holds for ever."""
    return patch.object(ModelDatabase, "claimable", lambda self, id_: self.ready[id_].until == -inf)


def settled_and_claimed_at_once() -> AbstractContextManager[object]:
    """One statement both deletes and claims: a row whose lease has ended is only claimed."""
    turn = ModelDatabase.turn

    def both(self: ModelDatabase, given: Turn) -> tuple[list[ClaimedRow], list[int]]:
        ids = [m.id for m in given.done if m.id in self.ready and self.claimable(m.id)]
        claimed = turn(self, given)
        for id_ in ids[: given.limit]:
            self.ready[id_] = Ready(claim_id=given.claim_id, until=self.now + given.lease_seconds)
        return claimed

    return patch.object(ModelDatabase, "turn", both)


def returns_ignored() -> AbstractContextManager[object]:
    """An acknowledgement counts, although the message came back."""
    return patch.object(Flight, "returned", lambda self, event: 0)


def nacks_charged() -> AbstractContextManager[object]:
    """A full queue costs an attempt."""
    return patch.object(core, "FREE", core.FREE - {Reason.NACKED})


def answers_awaited_for_ever() -> AbstractContextManager[object]:
    """A declaration that is not answered is waited for, and its messages with it."""
    stack = ExitStack()
    stack.enter_context(patch.object(declarer, "ANSWER_SECONDS", inf))
    stack.enter_context(patch.object(Topology, "_overstays", lambda self, now: None))
    return stack


def healthy_routes_forgotten() -> AbstractContextManager[object]:
    """What stood behind a frozen queue leaves its connection, and is not sent on."""
    take_back = Line.take_back

    def forget(self: Line, route: Route | None = None) -> list[Message]:
        taken = take_back(self, route)
        return [] if route else taken

    return patch.object(Line, "take_back", forget)


def frozen_queues_charged() -> AbstractContextManager[object]:
    """A queue that does not answer costs an attempt."""
    return patch.object(core, "FREE", core.FREE - {Reason.UNANSWERED})


def refusing_routes_charged() -> AbstractContextManager[object]:
    """A missing right costs an attempt."""
    return patch.object(core, "FREE", core.FREE - {Reason.FORBIDDEN})


def nothing_behind_the_front() -> AbstractContextManager[object]:
    """Claims only look beyond the last id: a late commit with an early one is skipped."""
    return patch.object(Cursor, "floor", lambda self, now: self._front)


def settled_by_id_alone() -> AbstractContextManager[object]:
    """A confirm settles whatever message has that id by now."""
    turn = ModelDatabase.turn

    def settle(self: ModelDatabase, given: Turn) -> tuple[list[ClaimedRow], list[int]]:
        for message in given.done:
            if message.id in self.ready:
                self.ready[message.id] = Ready(claim_id=message.claim_id)
        return turn(self, given)

    return patch.object(ModelDatabase, "turn", settle)


def receipt_for_what_is_locked() -> AbstractContextManager[object]:
    """What could not be settled for a lock gets a receipt all the same."""
    turn = ModelDatabase.turn

    def settle(self: ModelDatabase, given: Turn) -> tuple[list[ClaimedRow], list[int]]:
        locked = [m.id for m in given.done if m.id in self.locked and m.id in self.ready]
        self.receipts += map(self.identity, locked)
        return turn(self, given)

    return patch.object(ModelDatabase, "turn", settle)


MUTANTS: Final = (
    settled_by_id_alone,
    receipt_for_what_is_locked,
    mark_before_confirm,
    untagged_confirms,
    attempts_burned_by_outage,
    unfenced_failure_write,
    no_suspect_isolation,
    lease_without_end,
    settled_and_claimed_at_once,
    returns_ignored,
    nacks_charged,
    frozen_queues_charged,
    refusing_routes_charged,
    nothing_behind_the_front,
)
