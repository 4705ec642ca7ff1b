"""One connection, on a thread of its own, for all outboxes of a database that nobody serves now.

It says who has something to do, and has their doorbells. While its database is away it
tries again by itself, and nobody else notices. A schema that is missing, of another version or
locked is set apart, named once, and tried again: the others go on.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final, Protocol
from weakref import finalize

import structlog

from outbox_relay.errors import RelayError, SchemaError, StatementFailed
from outbox_relay.loop.incidents import Outage
from outbox_relay.loop.reconnect import attempts
from outbox_relay.many.duty import Duty
from outbox_relay.many.outbox import Outbox
from outbox_relay.observe import watch
from outbox_relay.postgres.database import current_url
from outbox_relay.postgres.lookout import Lookout
from outbox_relay.settings import Settings

log = structlog.get_logger()

APPLICATION_NAME: Final = "outbox-relay watch"
#: A schema that was set apart is tried again after so many seconds.
APART: Final = 5.0


class Listener(Protocol):
    """Who is told, on the thread of the watch."""

    def called(self, outbox: Outbox) -> None:
        """It has something to do, and is not watched any more."""

    def watched(self, outbox: Outbox, *, up: bool) -> None:
        """Whether its database is there; told every few seconds."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What the watch is told: to look after an outbox, again, or no more."""

    outbox: Outbox
    leave: bool = False
    moved: bool = True


class Watch(watch.Watch):
    """The watch of the database of these settings. Its methods may be called on any thread."""

    def __init__(self, settings: Settings, listener: Listener) -> None:
        super().__init__("watch")
        self._settings, self._listener = settings, listener
        self._orders = SimpleQueue[_Order]()
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._waker, False)
        for end in (self._wake, self._waker):
            finalize(self, os.close, end).atexit = False
        self._outboxes: dict[str, Outbox] = {}  # by schema
        self._duty = Duty()
        self._apart: dict[str, float] = {}  # and when it is tried again
        self._reasons: dict[str, str] = {}
        self._told_deaf = False
        #: What the log says of the database; who serves its outboxes goes by it as well.
        self.outage = Outage("database", monotonic)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; a connection that hangs is left behind."""
        self._stopped.set()
        self._nudge()

    def look_after(self, outbox: Outbox, *, moved: bool = True) -> None:
        """Watch it, or watch it again; `moved` if whoever served it had anything to publish."""
        self._orders.put(_Order(outbox, moved=moved))
        self._nudge()

    def leave(self, outbox: Outbox) -> None:
        """Watch it no more."""
        self._orders.put(_Order(outbox, leave=True))
        self._nudge()

    def _nudge(self) -> None:
        with suppress(BlockingIOError):  # it is awake already
            os.write(self._waker, b".")

    def _run(self) -> None:
        try:
            self._watch()
        except Exception:  # a fault of ours: it begins anew after a while, and says so
            self._tell_away()
            raise

    def _watch(self) -> None:
        while not self._stopped.is_set():
            lookout = attempts(self._stopped, self._rest, over=(RelayError,))(self._begin)
            if lookout is None:
                return
            try:
                while not self._stopped.is_set():
                    self._round(lookout)
            except RelayError as error:
                self._lost(error)
            finally:
                lookout.close()

    def _begin(self) -> Lookout:
        """Connect, and go one round, which shows that it works."""
        try:
            lookout = Lookout.connect(
                current_url(self._settings),
                self._settings.statement_timeout,
                doorbell=self._settings.doorbell,
                name=APPLICATION_NAME,
            )
        except RelayError as error:
            self._lost(error)
            raise
        try:
            self._duty.start_over()
            self._apart = dict.fromkeys(self._outboxes, 0.0)
            self._round(lookout, pausing=False)
        except BaseException as error:
            lookout.close()
            if isinstance(error, RelayError):
                self._lost(error)
            raise
        return lookout

    def _lost(self, error: RelayError) -> None:
        self.outage.lost(str(error))
        self._tell_away()

    def _tell_away(self) -> None:
        """Of those that have a seat, that one tells how it is."""
        for schema, outbox in self._outboxes.items():
            if not self._duty.has_called(schema):
                self._listener.watched(outbox, up=False)

    def _rest(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _round(self, lookout: Lookout, *, pausing: bool = True) -> None:
        """Do what there is to do, then sleep until there is more: a ring, an order, or a time."""
        self._obey(lookout)
        self._try_apart(lookout)
        self._lie_down(lookout)
        self._look(lookout)
        if pausing:
            pause = self._duty.pause(now := monotonic())
            if self._apart:
                pause = min(pause, max(0.0, min(self._apart.values()) - now))
            self._duty.rang(lookout.wait(pause, self._wake))

    def _obey(self, lookout: Lookout) -> None:
        """Do all that was ordered since the last round."""
        with suppress(BlockingIOError):
            while len(os.read(self._wake, 4096)) == 4096:
                pass
        with suppress(Empty):
            while True:
                self._follow(self._orders.get_nowait(), lookout)

    def _follow(self, order: _Order, lookout: Lookout) -> None:
        """Do as told. It is told once: all is noted before the session is used, which may fail."""
        schema = order.outbox.settings.schema
        known = self._outboxes.get(schema)
        if order.leave:
            if known == order.outbox:  # else another goes by this schema by now
                self._forget(schema)
                lookout.drop(schema)
        elif known != order.outbox:
            self._forget(schema)
            self._outboxes[schema] = order.outbox
            self._apart[schema] = 0.0
            lookout.drop(schema)
        elif schema in self._apart:
            self._duty.drop(schema)
        else:
            self._duty.returned(schema, monotonic(), moved=order.moved)

    def _forget(self, schema: str) -> None:
        self._outboxes.pop(schema, None)
        self._apart.pop(schema, None)
        self._reasons.pop(schema, None)
        self._duty.drop(schema)

    def _try_apart(self, lookout: Lookout) -> None:
        """Take those in that can be looked after by now."""
        now = monotonic()
        for schema in [schema for schema, at in self._apart.items() if at <= now]:
            try:
                lookout.add(schema)
            except (SchemaError, StatementFailed) as error:
                self._set_apart(schema, str(error))
                continue
            del self._apart[schema]
            if self._reasons.pop(schema, None):
                log.info("outbox_back", outbox=self._outboxes[schema].name)
            if not self._duty.knows(schema):
                self._duty.add(schema)
        if lookout.deaf and not self._told_deaf:
            log.info("doorbell_off", reason=lookout.deaf)
        self._duty.deaf = self._told_deaf = bool(lookout.deaf)

    def _set_apart(self, schema: str, reason: str) -> None:
        """Look after the others alone, until it is tried again."""
        self._apart[schema] = monotonic() + APART
        if self._reasons.get(schema) != reason:
            self._reasons[schema] = reason
            log.warning("outbox_apart", outbox=self._outboxes[schema].name, reason=reason)
        if self._duty.has_called(schema):
            return
        self._duty.drop(schema)
        self._listener.watched(self._outboxes[schema], up=False)

    def _lie_down(self, lookout: Lookout) -> None:
        """Try to be rung for those for which it is not."""
        if tried := self._duty.to_lie_down(now := monotonic()):
            hung = lookout.lie_down(tried)
            others = {name for name in tried if lookout.another_watches(name)}
            self._duty.lay_down(tried, hung, others, now)

    def _look(self, lookout: Lookout) -> None:
        """See what the due ones hold, and call those that have something to do."""
        broken: dict[str, str] = {}
        schemas, together = self._duty.to_look(monotonic())
        if schemas:
            look = lookout.look if together else lookout.look_singly
            glances = look(schemas, broken.__setitem__)
            self._duty.seen(glances, monotonic())
        if together or schemas:
            self.outage.works()
        for schema in schemas if together else ():
            if schema not in broken:
                self._listener.watched(self._outboxes[schema], up=True)
        for schema, reason in broken.items():
            lookout.drop(schema)
            self._set_apart(schema, reason)
        if called := self._duty.calls(monotonic()):
            for schema in called:  # told even if the session is gone: nobody else watches them
                self._listener.called(self._outboxes[schema])
            lookout.get_up(called)
