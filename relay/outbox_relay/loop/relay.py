"""The loop: step after step, and a new attempt after whatever fails. Every wait has a deadline."""

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from traceback import clear_frames
from typing import Final

import structlog

from outbox_relay.broker.publisher import Open, Publisher
from outbox_relay.core.backoff import IDLE_POLL, QUIET_AFTER
from outbox_relay.core.decide import Core
from outbox_relay.core.depths import Depths
from outbox_relay.core.fence import Fence
from outbox_relay.core.guard import Guard
from outbox_relay.errors import BrokerLost, RelayError, StoreLost
from outbox_relay.loop.counting import Counting
from outbox_relay.loop.cycle import Cycle
from outbox_relay.loop.holds import HoldReader
from outbox_relay.loop.housekeeping import Housekeeping
from outbox_relay.loop.incidents import Outage, outages
from outbox_relay.loop.left import Left, leave
from outbox_relay.loop.pace import Pace
from outbox_relay.loop.past import Past
from outbox_relay.loop.quarantine import Quarantine
from outbox_relay.loop.reconnect import TRANSIENT, attempts
from outbox_relay.loop.retention import Retention
from outbox_relay.observe.health import Health
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.tracing.trail import Untraced
from outbox_relay.postgres.store import Store
from outbox_relay.settings import Settings

log = structlog.get_logger()

#: A drain gives up so many seconds after its last progress: longer than other relays' leases.
DRAIN_PATIENCE: Final = 15.0


class Relay:
    """One relay process. `run` works until `stop`; `drain` until nothing due is left."""

    def __init__(
        self,
        settings: Settings,
        open_store: Callable[[], Store],
        open_publisher: Open,
        first_claim_id: int,
        metrics: Metrics,
        health: Health,
        tidy: Callable[[], tuple[int, int]],
        guard: Guard | None = None,
        depths: Depths | None = None,
        trail: Untraced | None = None,
        shared: tuple[Outage, Outage] | None = None,
        counting: Counting | None = None,
        lowest_first: bool = False,
    ) -> None:
        self._settings = settings
        self._new_core = partial(Core, settings, guard=guard, depths=depths, lowest=lowest_first)
        self._trail = trail or Untraced()
        self._open_store, self._open_publisher = open_store, open_publisher
        self._metrics, self._health = metrics, health
        self._remember_nothing(first_claim_id)
        self._store: Store | None = None
        self._past, self._pace = Past(), Pace()
        self._publisher: Publisher | None = None
        self._elsewhere = False  # whether to leave the node that was connected to last
        self._database, self._broker = shared or outages(monotonic)
        self._stopping, self._draining = threading.Event(), False
        self._housekeeping = Housekeeping(Retention(tidy, monotonic()), counting)

    def _remember_nothing(self, first_claim_id: int) -> None:
        self._core = self._new_core(first_claim_id)
        self._holds = HoldReader(self._core.waiting)
        quarantine, forget = Quarantine(self._open_publisher), not self._settings.retention
        fence = Fence(self._settings.fence, self._settings.lease)
        self._cycle = Cycle(
            self._core, quarantine, self._metrics, fence, self._trail, forget=forget
        )

    def quiet(self) -> bool:
        """Whether it has nothing to do but to look, and nothing has moved for a while."""
        return self._cycle.sleep.at_ease and monotonic() - self._cycle.last_message >= QUIET_AFTER

    @property
    def idle_since(self) -> float | None:
        """When the last message moved, 0 if none has; None while there is something to do."""
        return None if self._core.waiting or not self._cycle.idle else self._cycle.last_message

    def stop(self) -> None:
        """Claim no more; `run` returns when nothing is in flight, or the grace period is over."""
        self._stopping.set()

    def run(self) -> None:
        """Publish until `stop` is called. Raises SchemaError if the tables are not ours to use."""
        self._begin()
        log.info("relay_started", window=self._settings.window, batch=self._settings.batch_size)
        self._work()
        self._leave()
        log.info("relay_stopped", left_behind=self._cycle.holding)

    def serve(self) -> Left:
        """Publish as `run` does, as one seat of many: unlogged; the next seat gets what is left."""
        try:
            self._begin()
            self._work()
            self._give_back()
            self._cycle.close()
            return leave(self._store, self._publisher)
        except BaseException:  # a setting that is wrong, say: no connection is left open
            self._close()
            raise

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._round()
        deadline = monotonic() + self._settings.grace_period
        while not self._cycle.at_rest and monotonic() < deadline:
            self._round()

    def drain(self) -> bool:
        """Publish what is due; whether all of it was. Raises SchemaError as `run` does."""
        self._begin()
        self._draining = True
        progress = monotonic()
        drained = False
        while not self._stopping.is_set() and monotonic() - progress < DRAIN_PATIENCE:
            self._round()
            progress = max(progress, self._cycle.last_landed)
            if drained := self._drained():
                break
        self._leave()
        return drained

    def _drained(self) -> bool:
        try:
            return bool(self._cycle.at_rest and self._store and not self._store.anything_left())
        except TRANSIENT:
            return False  # the next round finds the connection closed, and opens another

    def _begin(self) -> None:
        """A schema that is wrong from the start is an error, not something to wait out."""
        try:
            self._store = self._open_store()
        except StoreLost as error:
            self._lose_store(error)
        else:
            self._note_store(self._store)
            self._database.works()

    def _round(self) -> None:
        """One step; where it fails, attempts to resume until one succeeds."""
        self._health.progress()
        try:
            if self._store and self._publisher:
                self._step(self._store, self._publisher)
            else:
                self._resume()
        except TRANSIENT as error:
            self._lose(error)
            attempts(
                self._stopping,
                self._rest,
                patience=DRAIN_PATIENCE if self._draining else None,
                given_up=lambda: self._rest(IDLE_POLL),
            )(self._try_to_resume)

    def _try_to_resume(self) -> None:
        try:
            self._resume()
        except TRANSIENT as error:
            self._lose(error)
            raise

    def _resume(self) -> None:
        """Open what is not connected. A whole step, with a claim, shows that it works."""
        if self._store is None:
            self._store = self._open_store()
            self._note_store(self._store)
        if self._publisher is None:
            self._cycle.give_back(self._store)
            self._publisher = self._open_publisher(elsewhere=self._elsewhere)
            self._elsewhere = False
            self._health.broker_up = True
            self._metrics.broker_up.set(1)
        self._cycle.resume()
        self._pace.begins(monotonic(), chores_first=self._draining or self._cycle.holding > 0)
        self._step(self._store, self._publisher)

    def _rest(self, seconds: float) -> None:
        """Wait out a back-off, keeping alive whichever connection is left."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._health.progress()
            pause = min(0.25, left)
            if self._publisher:
                try:
                    self._cycle.poll(self._publisher, pause)
                except BrokerLost as error:
                    self._lose_broker(error)
            elif self._stopping.wait(pause):
                # While stopping, still a pause: the grace period ends the loop, not this.
                threading.Event().wait(IDLE_POLL)
                return

    def _step(self, store: Store, publisher: Publisher) -> None:
        # Chores first: after a pause of this process, claims are renewed before others take them.
        sleep, holding = self._cycle.sleep, not self._cycle.at_rest
        if self._pace.are_due(now := monotonic(), sleep, quiet=self.quiet(), holding=holding):
            if self._pace.alarm:
                self._housekeeping.promote_soon()
            self._do_chores(store, now)
        self._holds.look(store, now, asleep=sleep.asleep)
        claiming = not self._stopping.is_set()
        sleeping = claiming and not self._draining
        self._cycle.step(store, publisher, claiming=claiming, sleeping=sleeping)

    def _do_chores(self, store: Store, now: float) -> None:
        """Renew claims, see that the database is the same, and do the chores that are due."""
        if held := self._core.renewal(now):
            store.renew(held, self._settings.lease)
        if self._past.is_due(now):
            self._past.goes_on(store.read_history())
        self._housekeeping.do(store, now)
        if self._core.look_for_waiting(now):
            self._core.found_waiting(store.waiting_routes())
        self._cycle.log_refusals()
        self._database.works()
        self._broker.works()

    def _note_store(self, store: Store) -> None:
        if not self._past.continues_in(store.history):
            self._start_over()
        self._past.begins(store.history)
        self._health.database_up = True
        self._metrics.database_found()
        self._housekeeping.count_soon()

    def _start_over(self) -> None:
        """Another server took over, or an older state was put back: ids may be given again.

        So no confirm is waited for: what is in flight may be published twice.
        """
        log.warning("database_promoted", forgotten=self._cycle.holding)
        self._cycle.broker_lost([])
        self._cycle.close()
        if self._publisher:
            self._publisher.close()
        self._publisher = None
        self._remember_nothing(self._core.next_claim_id)

    def _lose(self, error: RelayError) -> None:
        # The frames refer to what was in flight, and garbage is collected rarely.
        clear_frames(error.__traceback__)
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
        self._elsewhere = self._elsewhere or error.silent
        if self._publisher:
            self._cycle.broker_lost(self._publisher.unconfirmed() if error.poison else [])
            self._publisher.close()
        self._publisher = None
        self._health.broker_up = False
        self._metrics.broker_up.set(0)
        self._metrics.broker_blocked.set(0)

    def _leave(self) -> None:
        """Settle and give back what can be, and close; never raises."""
        self._give_back()
        self._close()

    def _give_back(self) -> None:
        try:
            if self._store:
                self._cycle.give_back(self._store)
        except TRANSIENT as error:
            self._lose_store(error)

    def _close(self) -> None:
        self._cycle.close()
        self._housekeeping.close()
        if self._publisher:
            self._publisher.close()
        if self._store:
            self._store.close()
