"""One relay's world: database and broker, each behind a proxy that can fail, and a ledger.

A case commits rows, lets a fault strike, and calls `finish`: what is promised is then checked for
every row, and what was measured is recorded for docs/faults.md.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from tests.faults.checker import Verdict, judge
from tests.faults.ledger import Ledger, Producer
from tests.faults.proxy import Proxy
from tests.faults.queues import Queue, RabbitQueue, through
from tests.faults.relay_process import crashing_relay, starved_relay
from tests.faults.results import Measured
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until

DEADLINE: Final = 90.0
WINDOW: Final = 200
#: Small claims and short waits, so that faults hit in the middle of things. A single attempt that
#: is charged makes a message dead: what arrives at last was charged with none.
HASTE: Final = {
    "OUTBOX_WINDOW": str(WINDOW),
    "OUTBOX_BATCH_SIZE": "50",
    "OUTBOX_MAX_ATTEMPTS": "1",
    "OUTBOX_RETRY_DELAY": "50ms",
    "OUTBOX_LEASE": "1s",
    "OUTBOX_CONFIRM_TIMEOUT": "2s",
    "OUTBOX_STATEMENT_TIMEOUT": "1s",
}
_AFTERWARDS = 50
_QUIET_LOOKS = 5

_STATES: LiteralString = "SELECT pending, scheduled, dead FROM outbox.stats"
_SENT: LiteralString = "SELECT count(*) FROM outbox.sent"
_DEAD: LiteralString = "SELECT message_id FROM outbox.dead"
_STORED: LiteralString = "SELECT message_id FROM outbox.message"
_ATTEMPTS: LiteralString = """
SELECT (SELECT coalesce(sum(attempts), 0) FROM outbox.ready)
     + (SELECT coalesce(sum(attempts), 0) FROM outbox.parked WHERE state <> 'dead')
"""
_SENT_AFTER: LiteralString = """
SELECT extract(epoch FROM min(sent_at))::float8 FROM outbox.sent WHERE sent_at > to_timestamp(%s)
"""


class Lab:
    """Everything a case needs; `database` is the way to it that no proxy disturbs."""

    def __init__(
        self, database: str, queue: Queue, folder: Path, record: Callable[[Measured], None]
    ) -> None:
        self.database, self.queue = database, queue
        self.ledger = Ledger()
        self.faults = 0
        self._folder, self._record = folder, record
        self._lifted: float | None = None
        self._stack = ExitStack()
        self.to_database = self._stack.enter_context(Proxy(_port(database)))
        self.to_broker = self._stack.enter_context(Proxy(_port(queue.url)))

    def close(self) -> None:
        """Kill the relays and end the proxies."""
        self._stack.close()

    def relay(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        crash: str = "",
        memory: int = 0,
        direct: bool = False,
        wait: bool = True,
        **changes: str,
    ) -> Relay:
        """Start a relay, between the proxies unless `direct`, and wait until it is ready.

        `crash` names a point of `crash` and a signal, `memory` is how many bytes it may map.
        """
        environment = {**self._urls(direct=direct), **HASTE, **(settings or {}), **changes}
        if crash:
            relay = crashing_relay(crash, self._folder, environment)
        elif memory:
            relay = starved_relay(memory, self._folder, environment)
        else:
            relay = Relay(("run",), self._folder, environment)
        self._stack.callback(relay.kill)
        if wait and not crash:
            relay.wait_ready()
        return relay

    def command(self, *arguments: str, **changes: str) -> Relay:
        """Run another command of the relay's, past the proxies."""
        command = Relay(arguments, self._folder, {**self._urls(direct=True), **changes})
        self._stack.callback(command.kill)
        return command

    def _urls(self, *, direct: bool) -> dict[str, str]:
        database, broker = self.database, self.queue.url
        if not direct:
            database = through(database, self.to_database.port)
            broker = through(broker, self.to_broker.port)
        return {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker}

    def commit(self, count: int, **columns: Any) -> set[str]:
        """Commit rows for the relay."""
        return self.ledger.commit(self.database, count, **columns)

    def roll_back(self, count: int = 20) -> None:
        """Insert rows and roll them back."""
        self.ledger.roll_back(self.database, count)

    def producer(self, pause: float = 0.005) -> Producer:
        """Somebody who goes on inserting, for the length of a block."""
        return Producer(self.ledger, self.database, pause)

    @contextmanager
    def fault(self, fired: Callable[[], Any], count: int = 1) -> Iterator[None]:
        """A fault for the length of the block, at whose end it must have fired."""
        yield
        assert fired(), "the fault did not fire"
        self.faults += count
        self._lifted = self._now()

    def fill_the_window(self, rows: int = 1000) -> None:
        """Have messages published whose confirms are on their way, and stay there."""
        self.under_way(1)  # the queue has to be there, so that nothing else is said
        before = self.to_broker.evidence["held"]
        self.to_broker.hold("down")
        self.commit(rows)
        wait_until(lambda: self.to_broker.evidence["held"] > before, DEADLINE, "held confirms")

    def under_way(self, rows: int = 1500) -> None:
        """Commit rows, at least one of which is sent."""
        before = self.sent()
        self.commit(rows)
        wait_until(lambda: self.sent() > before, DEADLINE, "a beginning")

    def delete_queue(self, queue: RabbitQueue) -> None:
        """Delete a queue while nothing is on its way to it.

        What reaches a queue as it is deleted RabbitMQ confirms, and it is gone.
        """
        self.to_broker.hold("up")
        totals = [-1]
        while len(totals) < _QUIET_LOOKS or len(set(totals[-_QUIET_LOOKS:])) > 1:
            totals.append(queue.arrived().total())
        queue.delete()
        self.to_broker.heal()

    def run(self, statement: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        """A statement on the undisturbed way to the database."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def sent(self) -> int:
        """How many messages are sent."""
        return int(self.run(_SENT)[0][0])

    def attempts(self) -> int:
        """The attempts that everything still to be sent has been charged with."""
        return int(self.run(_ATTEMPTS)[0][0])

    def wait_until_sent(self, deadline: float = DEADLINE) -> None:
        """Wait until nothing is pending; what should be dead is."""

        def settled() -> bool:
            with suppress(psycopg.OperationalError):
                return self.run(_STATES) == [(0, 0, len(self.ledger.doomed))]
            return False

        wait_until(settled, deadline, "an empty outbox")

    def finish(
        self,
        *,
        queues: tuple[str, ...] = ("celery",),
        duplicates: int | None = None,
        note: str = "",
    ) -> Verdict:
        """Check every promise, record what was measured; more work is done first.

        By default a window of duplicates for each fault is permitted.
        """
        self.commit(_AFTERWARDS)
        self.wait_until_sent()
        measured = self.measured(queues=queues, duplicates=duplicates, note=note)
        self._record(measured)
        return measured.verdict

    def measured(
        self,
        *,
        queues: tuple[str, ...] = ("celery",),
        duplicates: int | None = None,
        note: str = "",
    ) -> Measured:
        """Check every promise for what has been done so far."""
        arrived = sum((self.queue.arrived(queue) for queue in queues), self.queue.arrived("none"))
        verdict = judge(self.ledger, arrived, {id_ for (id_,) in self.run(_STORED)})
        allowed = self.faults * WINDOW if duplicates is None else duplicates
        verdict.assert_kept(allowed)
        assert {id_ for (id_,) in self.run(_DEAD)} == self.ledger.doomed
        return Measured(verdict, self.faults, allowed, self._recovery(), note)

    def _now(self) -> float:
        """The database's time, which may not be ours; ours while it cannot tell."""
        try:
            return float(self.run("SELECT extract(epoch FROM clock_timestamp())")[0][0])
        except psycopg.OperationalError:
            return time.time()

    def _recovery(self) -> float | None:
        """Seconds from the end of the last fault until a message was sent again."""
        if self._lifted is None:
            return None
        [(first,)] = self.run(_SENT_AFTER, self._lifted)
        return None if first is None else float(first) - self._lifted


def _port(url: str) -> int:
    return int(url.rpartition("@")[2].partition(":")[2].partition("/")[0])


#: Makes a lab on a database of the test's own.
LabOn = Callable[[str], Lab]
#: Makes a lab with a broker of the test's own.
LabWith = Callable[[Queue], Lab]
