"""The loop: claim, publish, settle, and outlive whatever fails in between.

All decisions are `core`'s; here they are carried out. Nothing is published before its claim is
committed, nothing is marked sent before its confirm has come, and every wait has an end.
"""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, stop_when_event_set

from outbox_relay.backoff import BUSY_POLL, IDLE_POLL, RECONNECT, poll_interval
from outbox_relay.core import Core, Turn
from outbox_relay.errors import BrokerLost, RelayError, SchemaError, StoreLost
from outbox_relay.health import Health
from outbox_relay.housekeeping import Housekeeping
from outbox_relay.incidents import Outage, Refusals
from outbox_relay.message import Leased, Refusal
from outbox_relay.metrics import Metrics
from outbox_relay.publisher import Outcomes, Publisher
from outbox_relay.quarantine import Quarantine
from outbox_relay.settings import Settings
from outbox_relay.store import Store

log = structlog.get_logger()

#: What the relay waits out. A schema that was right and no longer is, is being mended.
TRANSIENT: Final = (StoreLost, BrokerLost, SchemaError)
#: How often the chores beside publishing are looked through, in seconds.
CHORES_EVERY: Final = 0.1
#: A drain gives up this long after its last progress, once other relays' claims have run out.
DRAIN_PATIENCE: Final = 15.0


class Relay:
    """One relay process. `run` works until `stop`; `drain` until nothing due is left."""

    def __init__(
        self,
        settings: Settings,
        open_store: Callable[[], Store],
        open_publisher: Callable[[], Publisher],
        first_lease: int,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self._settings = settings
        self._open_store = open_store
        self._open_publisher = open_publisher
        self._core = Core(settings, first_lease)
        self._quarantine = Quarantine(open_publisher)
        self._metrics = metrics
        self._health = health
        self._store: Store | None = None
        self._publisher: Publisher | None = None
        self._database = Outage("database", monotonic)
        self._broker = Outage("broker", monotonic)
        self._refusals = Refusals()
        self._refused: list[Refusal] = []
        self._doubtful: frozenset[int] = frozenset()
        self._stopping = threading.Event()
        self._draining = False
        self._idle = False  # the last claim found nothing
        self._shown = (0, False)  # what the gauges of the broker show
        self._last_message = self._last_turn = self._next_turn = self._next_chores = 0.0
        self._housekeeping = Housekeeping(metrics, settings.retention, monotonic())

    def stop(self) -> None:
        """No new claims; `run` returns once what is in flight has landed, or the grace is over."""
        self._stopping.set()

    def run(self) -> None:
        """Publish until `stop` is called. Raises SchemaError if the tables are not ours to use."""
        self._begin()
        log.info("relay_started", window=self._settings.window, batch=self._settings.batch_size)
        while not self._stopping.is_set():
            self._round()
        deadline = monotonic() + self._settings.grace_period
        while not self._at_rest() and monotonic() < deadline:
            self._round()
        self._leave()
        log.info("relay_stopped", left_behind=self._core.holding)

    def drain(self) -> bool:
        """Publish what is due; whether all of it was. Raises SchemaError as `run` does."""
        self._begin()
        self._draining = True
        progress = monotonic()
        drained = False
        while not self._stopping.is_set() and monotonic() - progress < DRAIN_PATIENCE:
            self._round()
            progress = max(progress, self._last_message)
            if drained := self._drained():
                break
        self._leave()
        return drained

    def _drained(self) -> bool:
        try:
            return bool(self._at_rest() and self._store and not self._store.anything_left())
        except TRANSIENT:
            return False  # the next round finds the connection closed, and opens another

    def _begin(self) -> None:
        """A schema that is wrong from the start is an error, not something to wait out."""
        try:
            self._store = self._open_store()
        except StoreLost as error:
            self._lose_store(error)
        else:
            self._note_store()
            self._database.works()

    def _at_rest(self) -> bool:
        return self._core.at_rest and not self._refused

    def _round(self) -> None:
        """One step; where it fails, attempts to resume until one has succeeded."""
        self._health.progress()
        try:
            if self._store and self._publisher:
                self._step(self._store, self._publisher)
            else:
                self._resume()
        except TRANSIENT as error:
            self._lose(error)
            Retrying(
                wait=RECONNECT,
                stop=stop_when_event_set(self._stopping) | stop_after_delay(DRAIN_PATIENCE)
                if self._draining
                else stop_when_event_set(self._stopping),
                sleep=self._rest,
                retry=retry_if_exception_type(TRANSIENT),
                retry_error_callback=lambda _: self._rest(IDLE_POLL),
            )(self._try_to_resume)

    def _try_to_resume(self) -> None:
        try:
            self._resume()
        except TRANSIENT as error:
            self._lose(error)
            raise

    def _resume(self) -> None:
        """Connect what is missing; a whole step, with a claim, shows that it works."""
        if self._store is None:
            self._store = self._open_store()
            self._note_store()
        if self._publisher is None:
            self._give_back(self._store)
            self._publisher = self._open_publisher()
            self._health.broker_up = True
            self._metrics.broker_up.set(1)
        self._next_turn = self._next_chores = 0.0
        self._step(self._store, self._publisher)

    def _rest(self, seconds: float) -> None:
        """Wait out a back-off, keeping alive whichever connection is left."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._health.progress()
            pause = min(0.25, left)
            if self._publisher:
                try:
                    self._look_at(self._publisher, pause)
                except BrokerLost as error:
                    self._lose_broker(error)
            elif self._stopping.wait(pause):
                # Still bounded by the grace period, but never at full speed.
                threading.Event().wait(IDLE_POLL)
                return

    def _step(self, store: Store, publisher: Publisher) -> None:
        now = monotonic()
        wait = min(IDLE_POLL, max(0.0, self._next_turn - now))
        if now >= self._next_turn:
            turn = self._core.turn(
                now,
                claiming=not self._stopping.is_set(),
                blocked=publisher.blocked,
                in_flight_bytes=publisher.in_flight_bytes,
            )
            if self._idle and turn.limit and not turn.done and not store.waiting(turn.floor):
                self._next_turn = now + poll_interval(now - self._last_message)
                wait = max(0.0, self._next_turn - monotonic())
            elif turn.limit or (turn.done and now - self._last_turn > BUSY_POLL):
                self._take(turn, store, publisher)
                wait = max(0.0, self._next_turn - monotonic())
            else:
                wait = IDLE_POLL if publisher.in_flight else BUSY_POLL
        self._look_at(publisher, wait)
        self._note(self._quarantine.step(self._core))
        if self._refused:
            self._park(store)
        if now >= self._next_chores:
            self._next_chores = now + CHORES_EVERY
            self._keep_house(store, now)

    def _take(self, turn: Turn, store: Store, publisher: Publisher) -> None:
        """Settle, claim and publish."""
        began = self._last_turn = monotonic()
        leased = self._commit(turn, store)
        self._idle = not leased
        if not leased:
            self._next_turn = began + poll_interval(began - self._last_message)
            return
        try:
            claim = store.fetch(leased, turn.lease)
        except StoreLost:
            self._core.given_back([row.id for row in leased])
            raise
        self._last_message = now = monotonic()
        # A short batch means the table is drained: no hurry to ask again.
        self._next_turn = now if len(leased) == turn.limit else now + BUSY_POLL
        if not self._core.still_ours(began, now):
            log.warning("claim_outlived", messages=len(leased), seconds=round(now - began, 1))
            self._core.given_back([row.id for row in leased])
            return
        if claim.astray:
            if dropped := store.drop_orphans(claim.astray):
                log.warning("orphans_dropped", messages=dropped)
            self._core.given_back([id_ for id_, _ in claim.astray])
        publish, refused, later = self._core.fetched(claim)
        if later:
            store.release(later)
            self._core.given_back([id_ for id_, _ in later])
        self._refuse(refused + publisher.publish(publish))
        self._metrics.batch.observe(len(leased))
        log.debug("batch", claimed=len(leased), settled=len(turn.done))

    def _commit(self, turn: Turn, store: Store) -> list[Leased]:
        leased = store.turn(
            [m.id for m in turn.done], turn.floor, turn.limit, turn.lease, self._settings.lease
        )
        self._core.turned(turn, [row.id for row in leased])
        if turn.done and not self._settings.retention:
            store.forget(turn.done)
        return leased

    def _look_at(self, publisher: Publisher, wait: float) -> None:
        """See what the broker says, waiting for it no longer than that."""
        self._note(publisher.poll(min(wait, BUSY_POLL) if self._quarantine.busy else wait))
        if (now := (publisher.in_flight, publisher.blocked)) != self._shown:
            self._shown = now
            self._metrics.in_flight.set(publisher.in_flight)
            self._metrics.broker_blocked.set(publisher.blocked)

    def _note(self, outcomes: Outcomes) -> None:
        if not (outcomes.confirmed or outcomes.refused or outcomes.latencies):
            return
        if outcomes.confirmed:
            self._core.confirmed(outcomes.confirmed)
            self._last_message = monotonic()
        self._refused += outcomes.refused
        self._metrics.landed(outcomes)

    def _refuse(self, refused: list[Refusal]) -> None:
        self._refused += refused
        self._metrics.refused(refused)

    def _park(self, store: Store) -> None:
        parkings = self._core.refused(self._refused)
        store.park(parkings)
        self._core.parked(parkings)
        self._refusals.add(self._refused, parkings)
        self._refused = []

    def _keep_house(self, store: Store, now: float) -> None:
        """What has to be done now and then."""
        if held := self._core.renewal(now):
            store.renew(held, self._settings.lease)
        self._housekeeping.do(store, now)
        self._refusals.say()
        self._database.works()
        self._broker.works()

    def _note_store(self) -> None:
        self._health.database_up = True
        self._metrics.database_up.set(1)
        self._housekeeping.count_soon()

    def _lose(self, error: RelayError) -> None:
        if isinstance(error, BrokerLost):
            self._lose_broker(error)
        else:
            self._lose_store(error)

    def _lose_store(self, error: RelayError) -> None:
        self._database.lost(str(error))
        if self._store:
            self._store.close()
        self._store = None
        self._health.database_up = False
        self._metrics.database_lost()

    def _lose_broker(self, error: BrokerLost) -> None:
        self._broker.lost(str(error))
        if self._publisher:
            if error.blame:
                self._doubtful = frozenset(m.id for m in self._publisher.in_doubt())
                log.warning("suspects_isolated", messages=len(self._doubtful))
            self._publisher.close()
        self._publisher = None
        self._health.broker_up = False
        self._metrics.broker_up.set(0)
        self._metrics.broker_blocked.set(0)
        self._metrics.in_flight.set(0)
        self._shown = (0, False)

    def _give_back(self, store: Store) -> None:
        """Settle what was confirmed, park what was refused, and return every other claim.

        For when nothing is in flight any more. No attempt is counted for what is returned.
        """
        self._settle(store)
        innocent, suspects = self._core.holdings(self._doubtful)
        for held, suspicious in ((innocent, False), (suspects, True)):
            if held:
                store.release(held, suspicious=suspicious)
                self._core.given_back([id_ for id_, _ in held])
        self._doubtful = frozenset()
        self._quarantine.close()

    def _settle(self, store: Store) -> None:
        """Mark confirmed messages without claiming others."""
        turn = self._core.turn(monotonic(), claiming=False, blocked=False, in_flight_bytes=0)
        if turn.done:
            self._commit(turn, store)
        if self._refused:
            self._park(store)

    def _leave(self) -> None:
        """Settle and give back what can be, and close; never raises."""
        try:
            if self._store:
                self._give_back(self._store)
        except TRANSIENT as error:
            self._database.lost(str(error))
        self._refusals.say(all_of_them=True)
        self._quarantine.close()
        if self._publisher:
            self._publisher.close()
        if self._store:
            self._store.close()
