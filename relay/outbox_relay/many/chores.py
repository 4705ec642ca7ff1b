"""The chores of all outboxes, one outbox after another, whether or not it has a seat.

What a relay that runs alone does beside publishing, on threads of its own: forget what is old, give
messages without work their work back, bring dead letters home, see what became of messages, where
they go and whether workers know them. Each has its turn within a few minutes; two at a time, so
that one database that hangs does not stop all.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from time import monotonic
from typing import Final

import structlog
from structlog.contextvars import bound_contextvars

from outbox_relay.broker.registry import open_dead_letters
from outbox_relay.errors import RelayError, SchemaError
from outbox_relay.loop import retention
from outbox_relay.loop.homecoming import Homecoming
from outbox_relay.many.desk import Desk
from outbox_relay.many.observe import MAX_ROUTES
from outbox_relay.many.rota import Rota
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.watch import Watch
from outbox_relay.operator import depths, unknown
from outbox_relay.operator.effects import Effects
from outbox_relay.operator.inbox import inbox_of
from outbox_relay.operator.session import Session
from outbox_relay.postgres.home import Home
from outbox_relay.postgres.purge import tidy
from outbox_relay.settings import Settings

log = structlog.get_logger()

#: How many outboxes have a turn at a time. A turn takes a connection; for effects with an inbox
#: elsewhere, two.
AT_ONCE: Final = 2
#: How often each has a turn, in seconds: one that has published since the last, and one that rests.
EVERY: Final = 120.0
EVERY_IDLE: Final = 900.0
#: How long to wait where it is nobody's turn.
PAUSE: Final = 2.0
#: No further portion of one outbox is forgotten after so many seconds.
BUDGET: Final = 5.0
#: And none looked at that was confirmed: turns are seldom, and a backlog has to be caught up with.
EFFECTS_BUDGET: Final = 0.6

Chore = tuple[str, Callable[[], object]]


class Chores(Watch):
    """Has turns, one after another; `rota` and `lock` are common to all that do.

    What becomes of waiting messages is seen where it is `shown`.
    """

    def __init__(
        self, desks: Callable[[], Sequence[Desk]], rota: Rota, lock: Lock, *, shown: bool = True
    ) -> None:
        super().__init__("chores")
        self._desks, self._rota, self._lock, self._shown = desks, rota, lock, shown
        self._failing: dict[tuple[str, str], str] = {}

    def _run(self) -> None:
        pause = PAUSE
        while not self._stopped.wait(pause):
            desks = {desk.outbox.name: desk for desk in self._desks() if desk.health.database_up}
            often = {name: EVERY if desk.active else EVERY_IDLE for name, desk in desks.items()}
            with self._lock:
                name = self._rota.next(often, monotonic())
            pause = PAUSE if name is None else 0.0
            if name is not None:
                with bound_contextvars(outbox=name):
                    self._turn(desks[name])

    def _turn(self, desk: Desk) -> None:
        if not desk.turn.acquire(blocking=False):  # the other thread is at it still
            return
        try:
            desk.active = False
            self._do(desk)
        finally:
            desk.turn.release()

    def _do(self, desk: Desk) -> None:
        for chore, do in chores_of(desk, shown=self._shown):
            if self._stopped.is_set():
                return
            try:
                do()
                self._failing.pop((desk.outbox.name, chore), None)
            except RelayError as error:
                self._note(desk.outbox.name, chore, str(error))

    def _note(self, name: str, chore: str, reason: str) -> None:
        """Log what was not so the last time."""
        if self._failing.get((name, chore)) != reason:
            self._failing[name, chore] = reason
            log.error("chore_failed", chore=chore, reason=reason)


def chores(desks: Callable[[], Sequence[Desk]], *, shown: bool = True) -> list[Chores]:
    """Those that share all turns."""
    rota, lock = Rota(), Lock()
    return [Chores(desks, rota, lock, shown=shown) for _ in range(AT_ONCE)]


def chores_of(desk: Desk, *, shown: bool = True) -> Iterable[Chore]:
    """What there is to do for it, by name."""
    settings = desk.outbox.settings
    yield "tidy", partial(_tidy, settings)
    if shown:
        yield "queues", partial(_see_queues, desk)
    if settings.retention:  # else what was sent is forgotten: nothing is left for the others
        yield "dead_letters", desk.homecoming.round
        yield "effects", partial(_show_effects, desk)


def _see_queues(desk: Desk) -> None:
    """What cannot be known, for want of a right say, is not shown."""
    settings = desk.outbox.settings
    try:
        with Session.open(settings) as outbox, inbox_of(outbox, settings) as inbox:
            desk.queues = tuple(depths.queues_of(outbox)[:MAX_ROUTES])
            tasks = unknown.read(outbox, inbox)[:MAX_ROUTES]
    except RelayError as error:
        desk.metrics.unknown.clear()
        log.debug("queues_unread", reason=str(error))
        return
    desk.metrics.unknown_tasks({(each.task, each.queue): each.messages for each in tasks})


def _show_effects(desk: Desk) -> None:
    """What cannot be known is not shown. For an inbox that is not there, it is looked seldom."""
    if monotonic() < desk.unseen_until:
        return
    try:
        desk.metrics.effects(desk.effects.round())
    except RelayError as error:
        desk.metrics.effects(None)
        if isinstance(error, SchemaError):
            desk.unseen_until = monotonic() + EVERY_IDLE
        log.debug("effects_unread", reason=str(error))
    finally:
        desk.effects.rest()


def _tidy(settings: Settings) -> None:
    retention.tell(*tidy(settings, BUDGET))


def effects_of(settings: Settings) -> Effects:
    """Looks after what was confirmed of one outbox, and goes on there whenever it is asked to."""
    return Effects(settings, budget=EFFECTS_BUDGET)


def homecoming_of(settings: Settings, metrics: Metrics) -> Homecoming:
    """Brings home the dead letters of one outbox, whenever it is asked to."""
    return Homecoming(lambda: Home.open(settings), lambda: open_dead_letters(settings), metrics)
