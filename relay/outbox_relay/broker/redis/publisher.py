"""Pipelined publishing to Redis: every batch a transaction, every message settled by its reply.

A reply counts as a confirm only once the server has proved, for all that was written before, the
durability asked for. What a transaction provably did not do is sent again as soon as the server can
take it; what it may have done never is, until the marker has been read (see `in_doubt.py`).
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from time import monotonic
from typing import Any, Final

import structlog
from hiredis import ReplyError

from outbox_relay.broker.link import Link
from outbox_relay.broker.publisher import MAX_SUSPECTS
from outbox_relay.broker.redis import resp
from outbox_relay.broker.redis.batch import Batch
from outbox_relay.broker.redis.connect import open_server
from outbox_relay.broker.redis.durability import Durability
from outbox_relay.broker.redis.envelope import delivery_tags
from outbox_relay.broker.redis.handshake import handshake
from outbox_relay.broker.redis.in_doubt import BatchInDoubt, Ids, InDoubt, mark, new_marker
from outbox_relay.broker.redis.pipeline import Pipeline
from outbox_relay.broker.redis.proof import question, shortfall
from outbox_relay.broker.redis.routing import Route, Router
from outbox_relay.broker.redis.verdict import judge
from outbox_relay.core.message import Message, Outcomes, Reason, Refusal
from outbox_relay.errors import BrokerLost, Unpublishable

log = structlog.get_logger()

#: How long the server may take to prove a level before it is asked again, in seconds.
PROOF_SECONDS: Final = 1.0
#: How often a server that takes no writes is tried, in seconds.
RETRY_SECONDS: Final = 1.0
#: After so many quiet seconds, ask whether the server is still there.
PING_SECONDS: Final = 10.0
#: Messages of a kind go the same way.
_kind: Callable[[Message], object] = attrgetter("declare", "exchange", "routing_key", "mandatory")
_ids: Callable[[Message], Ids] = attrgetter("id", "message_id")


@dataclass(frozen=True, slots=True)
class Proof:
    """The question whether all up to a batch's number is as durable as it has to be."""

    number: int


class Ping:
    """The question whether the server is there."""


class RedisPublisher:
    """One connection to a Redis or Valkey. Implements `publisher.Publisher`."""

    max_suspects = MAX_SUSPECTS  # each message is judged by the replies to its own commands
    spotless = False  # what is in doubt is remembered with the outbox it is of

    def __init__(
        self,
        url: str,
        options: dict[str, Any],
        durability: Durability,
        in_doubt: InDoubt,
        *,
        declare: bool,
        confirm_timeout: float,
    ) -> None:
        self._server = open_server(url, options)
        self._link = Link(self._server.connection._sock, 0, b"")
        self._router = Router(self._server.channel, declare=declare)
        self._marker = new_marker(self._router.prefixed)
        self._durability = durability
        self._in_doubt = in_doubt
        self._confirm_timeout = confirm_timeout
        self._pipeline: Pipeline[Batch | Proof | Ping] = Pipeline()
        self._unproven: deque[tuple[Batch, list[Message]]] = deque()
        self._aboard: dict[int, Message] = {}
        self._held: list[Message] = []  # to be sent again once the server takes writes
        self._spent: list[int] = []  # settled batches, whose numbers the marker need not keep
        self._number = self._proven = 0
        self._paused: str | None = None
        self._short: str | None = None
        self._fate: BrokerLost | None = None
        self._retried = self._spoke = monotonic()
        self._outcomes = Outcomes([], [], [])
        self.in_flight_bytes = self.stuck = 0
        self.hangs = False  # what is in flight is waited for closely
        self.max_body: int | None = None  # 512 MB, more than the table takes
        try:
            if why := handshake(self._link, self._marker, durability, in_doubt):
                self._pause(why)
        except BaseException:
            self._server.close()
            raise

    @property
    def in_flight(self) -> int:
        """Messages published and not confirmed."""
        return len(self._aboard)

    @property
    def blocked(self) -> bool:
        """Whether the server takes no writes, or cannot prove the durability asked for."""
        return bool(self._paused or self._short)

    def publish(self, messages: Sequence[Message]) -> list[Refusal]:
        """Put messages on the wire, in order; those no broker could take come straight back."""
        if self._fate:
            raise self._fate
        now = monotonic()
        refused: list[Refusal] = []
        batch = Batch(self._number + 1)
        tags = delivery_tags(os.urandom(9), len(messages))
        routes: dict[object, Route | Refusal] = {}
        for message, tag in zip(messages, tags, strict=True):
            if self._in_doubt.arrived(_ids(message), now):
                self._outcomes.confirmed.append(message)
                continue
            route = routes.get(kind := _kind(message))
            if route is None:
                route = routes[kind] = self._router.route(message)
            if isinstance(route, Refusal):
                refused.append(Refusal(message, route.reason, route.detail))
                continue
            try:
                batch.add(message, route, tag)
            except Unpublishable as error:
                refused.append(Refusal(message, Reason.INVALID, str(error)))
        if batch.rows:
            self._send(batch, now)
        return refused

    def poll(self, timeout: float) -> Outcomes:
        """What is known by now, waiting at most `timeout` seconds for something to be."""
        if self._fate:
            raise self._fate
        if self._outcomes.confirmed or self._outcomes.refused:
            timeout = 0
        try:
            for about, replies in self._pipeline.feed(self._link.pump(timeout)):
                self._handle(about, replies)
            self._keep_up(monotonic())
        except BrokerLost as error:
            # Raised by the next call, so that what was confirmed before is returned by this one.
            self._fate = error
        outcomes, self._outcomes = self._outcomes, Outcomes([], [], [])
        return outcomes

    def unconfirmed(self) -> list[Message]:
        """What was in flight when the connection was lost."""
        return list(self._aboard.values())

    def unpublished(self) -> list[Message]:
        """Nothing waits here: queues need no declaration."""
        return []

    def close(self) -> None:
        """Drop the connection, and remember the batches that it leaves in doubt."""
        unanswered = [about for about in self._pipeline.open if isinstance(about, Batch)]
        self._in_doubt.remember(
            self._marker,
            [
                BatchInDoubt(
                    batch.number, tuple(_ids(row.message) for row in batch.rows), batch.lists
                )
                for batch in (*unanswered, *(batch for batch, _ in self._unproven))
            ],
        )
        if untold := self._outcomes.confirmed:
            self._in_doubt.untold(map(_ids, untold), monotonic())
        self._outcomes = Outcomes([], [], [])
        self._aboard.clear()
        self._unproven.clear()
        self._pipeline, self._held = Pipeline(), []
        self._server.close()

    def _send(self, batch: Batch, now: float) -> None:
        self._number = batch.number
        data = batch.seal(mark(self._marker, batch.number, self._spent), now)
        self._spent = []
        for row in batch.rows:
            if row.message.id not in self._aboard:
                self._aboard[row.message.id] = row.message
                self.in_flight_bytes += row.message.size
        self._ask(batch, batch.replies, data, now)
        self._ask_for_proof(now)

    def _ask(self, about: Batch | Proof | Ping, replies: int, data: bytes, now: float) -> None:
        self._pipeline.asked(about, replies, now)
        self._spoke = now
        self._link.send(data)

    def _ask_for_proof(self, now: float) -> None:
        """One question at a time: the server reads nothing else until it has answered it."""
        if self._durability.by_reply or self._number == self._proven:
            return
        if not any(isinstance(about, Proof) for about in self._pipeline.open):
            self._ask(Proof(self._number), 1, question(self._durability, PROOF_SECONDS), now)

    def _handle(self, about: Batch | Proof | Ping, replies: list[object]) -> None:
        match about:
            case Batch():
                self._handle_batch(about, replies)
            case Proof(number):
                self._handle_proof(number, replies[0])
            case Ping():
                if isinstance(replies[0], ReplyError):
                    raise BrokerLost(f"the server will not have us: {replies[0]}")

    def _handle_batch(self, batch: Batch, replies: list[object]) -> None:
        verdict = judge(batch, replies)
        if verdict.lost:
            raise verdict.lost
        for refusal in verdict.refused:
            self._land(refusal.message)
        self._outcomes.refused.extend(verdict.refused)
        if verdict.pause:
            self._held += verdict.again
            self._pause(verdict.pause)
        elif verdict.again:
            self._publish_again(verdict.again)
        else:
            self._unpause()
        if self._durability.by_reply or not verdict.taken:
            self._confirm(batch, verdict.taken)
        else:
            self._unproven.append((batch, verdict.taken))

    def _handle_proof(self, number: int, answer: object) -> None:
        if isinstance(answer, ReplyError):
            raise BrokerLost(f"the server proves nothing: {answer}")
        short = shortfall(self._durability, answer)
        if short and not self._short:
            log.warning("broker_blocked", reason=short)
        elif self._short and not short:
            log.info("broker_unblocked")
        self._short = short
        if not short:
            self._proven = number
            while self._unproven and self._unproven[0][0].number <= number:
                self._confirm(*self._unproven.popleft())
        self._ask_for_proof(monotonic())

    def _confirm(self, batch: Batch, taken: list[Message]) -> None:
        self._spent.append(batch.number)
        if not taken:
            return
        self._outcomes.latencies.append((monotonic() - batch.written, len(taken)))
        self._outcomes.confirmed.extend(taken)
        for message in taken:
            self._land(message)

    def _land(self, message: Message) -> None:
        if self._aboard.pop(message.id, None):
            self.in_flight_bytes -= message.size

    def _pause(self, why: str) -> None:
        if not self._paused:
            log.warning("broker_blocked", reason=why)
        self._paused = why

    def _unpause(self) -> None:
        if self._paused:
            log.info("broker_unblocked")
            self._paused = None
            held, self._held = self._held, []
            self._publish_again(held)

    def _publish_again(self, messages: list[Message]) -> None:
        """Send once more what a transaction provably did not do."""
        refused = self.publish(messages)
        for refusal in refused:
            self._land(refusal.message)
        self._outcomes.refused.extend(refused)

    def _keep_up(self, now: float) -> None:
        """Try a paused server again, keep a quiet one awake, and give up a silent one."""
        if self._paused and now - self._retried > RETRY_SECONDS and not self._pipeline:
            self._retried = now
            self._send(
                Batch(self._number + 1), now
            )  # nothing but the marker, to see whether it is taken
        elif not self._pipeline and now - self._spoke > PING_SECONDS:
            self._ask(Ping(), 1, resp.PING, now)
        oldest = self._pipeline.oldest or now
        if self._unproven:
            oldest = min(oldest, self._unproven[0][0].written)
        if now - oldest > self._confirm_timeout:
            raise BrokerLost(self._short or f"no confirm for {now - oldest:.0f} s")
