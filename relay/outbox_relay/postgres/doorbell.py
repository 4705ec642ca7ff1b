"""The doorbell: how a relay with nothing to do is woken by the commit of whoever makes work.

It saves polls and waiting, and nothing depends on it: a relay that hears nothing still looks. The
schema's `bell` and `ring` are its other half; docs/decisions/0011-doorbell.md has the reasons.

A relay may go to sleep only while no open transaction has made work; from then on every such
transaction rings. Both are one advisory lock of the session, so it ends with the connection, and a
snapshot older than the lock makes no difference.
"""

import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from psycopg.sql import SQL, Identifier

from outbox_relay.postgres.database import BoundedConnection, translated
from outbox_relay.postgres.statement import Statement
from outbox_relay.settings.values import Doorbell

#: A pooler has given out a process id of its own. NOTIFY cannot be part of a prepared transaction.
BELL: Final = Statement(
    "bell",
    """
SELECT bell, watch, channel, pg_backend_pid(),
       current_setting('max_prepared_transactions')::integer
FROM {outbox}.bell()
""",
)
TRY_LOCK: Final = Statement("try_lock", "SELECT pg_try_advisory_lock(%(key)s)")
UNLOCK: Final = Statement("unlock", "SELECT pg_advisory_unlock(%(key)s)")
#: What a sleeper looks at: whether there is work (as `PROBE` asks), and in how many seconds
#: something scheduled, or to be tried again, is due: NULL while nothing is.
LOOK: Final = Statement(
    "look",
    """
SELECT EXISTS (SELECT FROM {outbox}.ready WHERE id > %(floor)s AND lease_until < now())
       OR EXISTS (SELECT FROM {outbox}.lane_news WHERE id > %(above)s),
       (SELECT extract(epoch FROM available_at - clock_timestamp())::double precision
        FROM {outbox}.parked WHERE state <> 'dead' ORDER BY available_at LIMIT 1)
""",
)


def obstacle(connection: BoundedConnection, process: int, prepared: int) -> str | None:
    """Why nobody can be rung on this connection, given what BELL has told."""
    if process != connection.pgconn.backend_pid:
        return "a pooler is in between"
    if prepared:
        return "max_prepared_transactions is not 0, and no prepared transaction can notify"
    return None


class Look(NamedTuple):
    """Whether there is work, and the seconds until something is due; None while nothing waits."""

    work: bool
    due: float | None


@dataclass(frozen=True, slots=True)
class _Keys:
    bell: int
    watch: int


class Bell:
    """The doorbell of one connection. `run` is how statements are run on it."""

    def __init__(
        self,
        connection: BoundedConnection,
        run: Callable[..., list[Any]],
        wanted: Doorbell,
    ) -> None:
        self._connection = connection
        self._run = run
        self._wanted = wanted
        self._keys: _Keys | None = None
        self._hung = self._rung = False
        #: Whether it is this relay that is rung, or another.
        self.watching = self.another_watches = False

    def watch(self) -> str | None:
        """Become the relay that is rung, unless another is; returns why none can be, once."""
        if self._wanted == "off":
            return None
        bell, watch, channel, process, prepared = self._run(BELL)[0]
        if self._wanted == "auto" and (reason := obstacle(self._connection, process, prepared)):
            self._wanted = "off"
            return reason
        self.watching = self._try_lock(watch)
        self.another_watches = not self.watching
        if self.watching:
            self._keys = _Keys(bell, watch)
            self._connection.add_notify_handler(self._hear)
            with translated():
                self._connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
        return None

    def lie_down(self) -> bool:
        """Whether from now on all work that cannot be seen yet will ring."""
        self._rung = False  # what rang until now can be seen
        if self._keys and not self._hung:
            self._hung = self._try_lock(self._keys.bell)
        return self._hung

    def get_up(self) -> None:
        """Nobody needs to ring any more."""
        if self._keys and self._hung:
            self._run(UNLOCK, {"key": self._keys.bell})
            self._hung = False

    def end(self) -> None:
        """Hear nothing more: the connection is left to another."""
        if self._keys:
            self._connection.remove_notify_handler(self._hear)
        self._keys, self._hung, self.watching = None, False, False

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether it rang."""
        with translated():
            self._hear_all()
            if self._rung:
                return True
            waiting = select.poll()
            waiting.register(self._connection.pgconn.socket, select.POLLIN)
            if waiting.poll(max(0.0, seconds) * 1000):
                self._connection.pgconn.consume_input()
                self._hear_all()
        return self._rung

    def look(self, floor: int, above: int) -> Look:
        """Whether there is work above these, and when there will be."""
        return Look(*self._run(LOOK, {"floor": floor, "above": above})[0])

    def _hear_all(self) -> None:
        while self._connection.pgconn.notifies():
            self._rung = True

    def _hear(self, _: object) -> None:
        self._rung = True

    def _try_lock(self, key: int) -> bool:
        return bool(self._run(TRY_LOCK, {"key": key})[0][0])
