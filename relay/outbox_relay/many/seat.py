"""A seat: a thread on which the relay of one outbox runs, until it is told to leave.

The relay is the one that would run alone, with a claim no larger than suits one of many. What it
leaves undone is given back, or held until its lease ends, as always.
"""

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from traceback import extract_tb
from typing import Final

from outbox_relay.broker.registry import depths_of, lowest_first, open_sounder
from outbox_relay.core.guard import Guard
from outbox_relay.core.thread import ContextThread
from outbox_relay.errors import RelayError
from outbox_relay.loop.knowledge import Knowledge
from outbox_relay.loop.left import NOTHING, Left
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.soundings import DepthWatch
from outbox_relay.many.desk import Desk
from outbox_relay.many.openings import Openings
from outbox_relay.many.seats import Report
from outbox_relay.postgres.workers import Workers
from outbox_relay.settings import Settings
from outbox_relay.settings.table import BATCH_SIZE, WINDOW

#: Where nothing else is set: what many seats hold at a time has to fit into one process, and one
#: claim must not keep the others from running.
SEAT_WINDOW: Final = 1000
SEAT_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Ended:
    """A seat has ended: whether anything was published, and why it had to, if it had.

    What it has `left` is the next one's.
    """

    name: str
    moved: bool
    reason: str = ""
    left: Left = NOTHING


class Seat:
    """One seat. `ended` is called on its thread, as the last thing."""

    def __init__(self, desk: Desk, settings: Settings, ended: Callable[[Ended], None]) -> None:
        self._desk, self._settings, self._ended = desk, settings, ended
        self.began = monotonic()
        self._database_gone = self._broker_gone = self.began
        self._guard = Guard() if settings.hold_unknown else None
        self._depths = depths_of(settings)
        desk.health.database_up = desk.health.broker_up = False
        self._openings = Openings(settings, desk.open_publisher)
        self._relay = Relay(
            settings,
            open_store=self._openings.store,
            open_publisher=self._openings.publisher,
            first_claim_id=secrets.randbits(31) << 32,
            metrics=desk.metrics,
            health=desk.health,
            tidy=_nothing,  # the chores do that for all
            guard=self._guard,
            depths=self._depths,
            shared=(desk.database, desk.broker),
            lowest_first=lowest_first(settings),
        )
        # A daemon: the end of the process waits for no server that hangs.
        self._thread = ContextThread(target=self._run, name="seat", daemon=True)

    def start(self, left: Left = NOTHING) -> None:
        """Begin, and go on with what others have left."""
        self._openings.go_on_with(left)
        self._thread.start()

    def leave(self) -> None:
        """Claim no more, let land what is in flight, and end."""
        self._relay.stop()

    def report(self, now: float) -> Report:
        """How it goes; call it every so often."""
        health = self._desk.health
        if health.database_up:
            self._database_gone = now
        if health.broker_up or not health.database_up:
            self._broker_gone = now
        since = self._relay.idle_since
        return Report(
            idle=0.0 if since is None else now - max(since, self.began),
            without_database=now - self._database_gone,
            without_broker=now - self._broker_gone,
            at_work=health.broker_up,
        )

    def _run(self) -> None:
        reason, left = "", NOTHING
        self._openings.begin()
        try:
            with ExitStack() as beside:
                if self._guard is not None:
                    workers = Knowledge(self._guard, lambda: Workers.open(self._settings))
                    beside.enter_context(workers)
                if self._depths is not None:
                    open_one = partial(open_sounder, self._settings)
                    beside.enter_context(DepthWatch(self._depths, open_one, self._desk.metrics))
                left = self._relay.serve()
        except RelayError as error:
            reason = str(error)
        except Exception as error:  # a fault of ours with one outbox is not the others'
            place = extract_tb(error.__traceback__)[-1]  # its own words may repeat a value
            reason = f"{type(error).__name__} in {place.name}, line {place.lineno}"
        finally:
            self._openings.close()
            moved = self._relay.idle_since != 0.0
            self._ended(Ended(self._desk.outbox.name, moved, reason, left))


def seat_settings(settings: Settings, grace_period: float) -> Settings:
    """The settings of an outbox as one seat of many goes by them."""
    smaller: dict[str, int] = {}
    if settings.window == WINDOW.initial:
        smaller["window"] = SEAT_WINDOW
    if settings.batch_size == BATCH_SIZE.initial:
        smaller["batch_size"] = SEAT_BATCH
    return replace(settings, grace_period=grace_period, **smaller)  # type: ignore[arg-type]


def _nothing() -> tuple[int, int]:
    return 0, 0
