"""One step of the relay after another: claim, publish, settle. Raises what stops a step.

All decisions are `core`'s; here they are carried out, on a store and a publisher that work. Nothing
is published before its claim is committed, nothing is marked sent before its confirm has come.

The database works while messages are encoded: a step publishes what the last one fetched, while the
messages of rows claimed last are on their way and the next ones are being claimed. What was fetched
passes the fence first, which without `OUTBOX_FENCE` keeps nothing.
"""

from dataclasses import replace
from time import monotonic

import structlog

from outbox_relay.broker.publisher import Publisher
from outbox_relay.core.backoff import BUSY_POLL, broker_wait, poll_interval
from outbox_relay.core.claim import Batch, Claim, Reply, Turn
from outbox_relay.core.decide import Core
from outbox_relay.core.fence import Fence, Waiting
from outbox_relay.core.message import Message, Outcomes, Refusal
from outbox_relay.loop import orphans
from outbox_relay.loop.fenced import Fenced
from outbox_relay.loop.quarantine import Quarantine
from outbox_relay.loop.refused import Refused
from outbox_relay.loop.settling import Settling
from outbox_relay.loop.sleep import Sleep
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.tracing.trail import Untraced
from outbox_relay.postgres.store import Store

log = structlog.get_logger()


class Cycle:
    """What is held, by how far it has come: claimed, fetched, in flight, confirmed or refused."""

    def __init__(
        self,
        core: Core,
        quarantine: Quarantine,
        metrics: Metrics,
        fence: Fence,
        trail: Untraced,
        *,
        forget: bool,
    ) -> None:
        self._core = core
        self._quarantine = quarantine
        self._metrics = metrics
        self._fence, self._fenced = fence, Fenced(fence, metrics)
        self._trail = trail
        self._claimed: Claim | None = None
        self._fetched: Batch | None = None
        self._refused = Refused(core, metrics, trail)
        self._settling = Settling(forget=forget)
        self._suspects: frozenset[int] = frozenset()
        self._idle = self._full = False  # the last claim found nothing; the next has no room
        self.sleep = Sleep()
        self._shown = (0, False)  # what the gauges of the broker show
        self._last_turn = self._next_turn = 0.0
        # When a message was last claimed or confirmed, and last confirmed or dead; monotonic.
        self.last_message = self.last_landed = 0.0

    @property
    def holding(self) -> int:
        """Messages claimed and not yet confirmed or refused."""
        return self._core.holding

    @property
    def at_rest(self) -> bool:
        """Whether nothing is held, and nothing is left to be settled or parked."""
        return self._core.at_rest and not (self._refused.any or self._settling.late)

    @property
    def idle(self) -> bool:
        """Whether it is at rest, and the last look found nothing to claim."""
        return self._idle and self.at_rest and not self._quarantine.busy

    def resume(self) -> None:
        """Claim at the next step: a connection is a new one."""
        self._next_turn = 0.0
        self.sleep = Sleep()

    def step(
        self, store: Store, publisher: Publisher, *, claiming: bool, sleeping: bool = False
    ) -> None:
        """Do what there is to do now, then wait: a moment for the broker, or for the doorbell."""
        self._fenced.look_after(store, monotonic())
        turn = self._turn(store, publisher, claiming=claiming, sleeping=sleeping)
        self._round_trip(turn, store, publisher)
        self.sleep.take_bell_down(store)
        self.poll(publisher, 0.0 if self.sleep.asleep else self._pause(publisher))
        if self.sleep.asleep and self.sleep.nap(store, self._core, self._next_turn):
            self._idle, self._next_turn = False, 0.0
        self._handle(self._quarantine.step(self._core, monotonic()))
        self._settling.catch_up(store, monotonic())
        self._park(store)

    def poll(self, publisher: Publisher, wait: float) -> None:
        """Handle what the broker says, waiting for it no longer than that."""
        self._handle(publisher.poll(min(wait, BUSY_POLL) if self._quarantine.busy else wait))
        if (now := (publisher.in_flight, publisher.blocked)) != self._shown:
            self._shown = now
            self._metrics.in_flight.set(publisher.in_flight)
            self._metrics.broker_blocked.set(publisher.blocked)

    def log_refusals(self) -> None:
        """Log recent refusals, summed up."""
        self._refused.log()

    def close(self) -> None:
        """Log what is left to be logged; what is held is left until its lease ends."""
        self._refused.log(all_of_them=True)
        self._trail.lost(monotonic())
        self._quarantine.close()

    def broker_lost(self, suspects: list[Message]) -> None:
        """Nothing is in flight any more; the broker may have died of one of `suspects`."""
        if suspects:
            self._suspects = frozenset(message.id for message in suspects)
            log.warning("suspects_isolated", messages=len(suspects))
        self._trail.lost(monotonic())
        self._metrics.in_flight.set(0)
        self._shown = (0, False)

    def give_back(self, store: Store) -> None:
        """Settle what was confirmed, park what was refused, and give back the rest.

        Call it when nothing is in flight. No attempt is counted for what is given back.
        """
        turn = self._core.turn(monotonic(), claiming=False, blocked=False, in_flight_bytes=0)
        if turn.done:
            self._turned(turn, store.round_trip(None, turn), monotonic())
            self._settling.forget(store, turn.done)
        self._settling.catch_up(store, monotonic(), again=True)
        self._park(store, again=True)
        cleared, suspected = self._core.held(self._suspects)
        for held, suspicious in ((cleared, False), (suspected, True)):
            if held:
                store.release(held, suspicious=suspicious)
                self._core.given_back([each.id for each in held])
        store.bell.get_up()
        self._claimed = self._fetched = None
        self._fence.clear()
        self._refused.forget()
        self._suspects = frozenset()
        self._quarantine.close()

    def _turn(
        self, store: Store, publisher: Publisher, *, claiming: bool, sleeping: bool
    ) -> Turn | None:
        """The next turn, if it is time for one and there is something it could do."""
        now = monotonic()
        called = self.sleep.asleep and self._core.waiting.ready(now)
        if now < self._next_turn and not called:
            return None
        sleeping = sleeping and self._only_waits(publisher, now)
        if sleeping and self.sleep.lie_down(store, now, now - self.last_message):
            self._core.look_in_lanes()
        turn = self._core.turn(
            now,
            claiming=claiming,
            blocked=publisher.blocked,
            in_flight_bytes=publisher.in_flight_bytes + self._fence.bytes,
            stuck=publisher.stuck,
        )
        self._full = not (turn.room or turn.done)
        if turn.done:
            return turn if turn.room or now - self._last_turn > BUSY_POLL else None
        looking, began = self._idle and turn.room and not turn.routes, monotonic()
        if looking and not self.sleep.finds_work(store, turn):
            self._core.nothing_to_claim(turn, monotonic() - began)
            pause = self.sleep.pause(turn, store, now, now - self.last_message)
            if not self.sleep.asleep:  # a sleeper is called
                pause = min(pause, max(BUSY_POLL, self._core.waiting.pause(now)))
            self._next_turn = now + pause
            return None
        self.sleep.get_up()
        return turn if turn.room else None

    def _only_waits(self, publisher: Publisher, now: float) -> bool:
        """Whether there is nothing to do but to wait: for new work, and for what hangs."""
        if publisher.blocked or not self._idle or self._refused.any or self._settling.late:
            return False
        hanging = publisher.in_flight if self._core.holding and publisher.hangs else 0
        return self._core.may_sleep(now, hanging)

    def _pause(self, publisher: Publisher) -> float:
        """How long to wait for the broker: until there is something else to do."""
        if self._claimed or self._fetched:
            return 0.0
        now, answers = monotonic(), publisher.in_flight > 0 or publisher.blocked
        until_turn = max(self._next_turn, self._last_turn + BUSY_POLL) - now
        pause = broker_wait(until_turn, full=self._full, answers=answers)
        return max(0.0, min(pause, self._fence.next_look(now)))

    def _round_trip(self, turn: Turn | None, store: Store, publisher: Publisher) -> None:
        """Publish what was fetched, while the database fetches, settles and claims what is next."""
        claimed, began = self._claimed, monotonic()
        if not (claimed or turn or self._fence.next_look(began) <= 0):
            self._publish(publisher)
            self._let_through(store)
            return
        if claimed:
            claimed = replace(claimed, max_body=publisher.max_body)
        store.ask(claimed, turn)
        asked = monotonic()
        try:
            self._publish(publisher)
        finally:  # what is claimed is known, and can be given back, whatever the broker did
            published = monotonic()
            reply = store.reply()
            self._claimed = None
            if turn:  # the time in between was the broker's
                self._turned(turn, reply, began, asked - began + monotonic() - published)
            if reply.standbys:
                self._fence.heard(reply.standbys, monotonic())
            if claimed and reply.fetched:
                self._fence.hold(reply.fetched, claimed)
            self._let_through(store)
            if turn:
                self._settling.forget(store, turn.done)

    def _publish(self, publisher: Publisher) -> None:
        """Publish what was fetched, if it is still ours."""
        if self._fetched is None:
            return
        (messages, since), self._fetched = self._fetched, None
        if self._core.still_ours(since, now := monotonic()):
            self._trail.published(messages, now)
            self._refuse(publisher.publish(messages))
            return
        log.warning("claim_outlived", messages=len(messages), seconds=round(now - since, 1))
        self._core.given_back([message.id for message in messages])

    def _let_through(self, store: Store) -> None:
        """Go on with what need not wait any longer."""
        if self._fetched is None and (passed := self._fence.take()):
            self._arrived(passed, store)

    def _arrived(self, passed: Waiting, store: Store) -> None:
        """Sort what was fetched; give back what had no room, and forget work without a message."""
        fetched = passed.fetched
        self._trail.claimed(fetched.messages, passed.since)
        work = self._core.fetched(fetched, monotonic())
        self._fetched = Batch(work.publish, passed.since)
        self._refuse(work.refused)
        # Not held any more, even if the release does not reach the database.
        self._core.given_back([held.id for held in (*work.later, *fetched.orphans)])
        if work.later:
            store.release(work.later)
        orphans.forget(fetched.orphans, store)

    def _turned(self, turn: Turn, reply: Reply, began: float, seconds: float = 0.0) -> None:
        """The turn is committed; the database was waited for so long."""
        self._last_turn = began
        self._core.turned(turn, reply, began, seconds)
        self._settling.passed_over(turn.done, reply.unsettled)
        if not turn.room:
            return
        rows = reply.claimed
        self._idle = not rows
        called = self.sleep.was_called()
        if not rows:
            self._next_turn = began + poll_interval(began - self.last_message)
            if called and turn.floor:
                self._core.look_everywhere()
                self._next_turn = began
            return
        position = reply.standbys.written if reply.standbys else 0
        self._claimed = Claim(rows, turn.claim_id, began, position=position)
        self.last_message = now = monotonic()
        # A short batch means that the table is drained.
        self._next_turn = now if len(reply.rows) == turn.limit else now + BUSY_POLL
        self._metrics.batch.observe(len(rows))
        log.debug("batch", claimed=len(rows), settled=len(turn.done))

    def _park(self, store: Store, *, again: bool = False) -> None:
        """Write down what was refused; `again` also what was locked a moment ago."""
        if self._refused.write(store, monotonic(), again=again):
            self.last_landed = monotonic()

    def _handle(self, outcomes: Outcomes) -> None:
        if not (outcomes.confirmed or outcomes.refused or outcomes.latencies):
            return
        if self.sleep.get_up():  # what hung does so no more
            self._next_turn = 0.0
        if outcomes.confirmed:
            self.last_message = self.last_landed = monotonic()
            self._core.confirmed(outcomes.confirmed, self.last_landed)
            self._trail.confirmed(outcomes.confirmed, self.last_landed)
            if told := sum(message.expired for message in outcomes.confirmed):
                self._metrics.expired.inc(told)
        self._refused.add(outcomes.refused, monotonic())
        self._metrics.count_outcomes(outcomes)

    def _refuse(self, refused: list[Refusal]) -> None:
        self._refused.add(refused, monotonic())
        self._metrics.count_refused(refused)
