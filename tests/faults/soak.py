"""Random faults from a seed, one after the other, while producers go on and relays are kept alive.

The same seed strikes the same things in the same order; when exactly, the machine decides.
"""

import random
from collections import Counter
from collections.abc import Callable
from time import sleep, time
from typing import Final

import psycopg

from servers import Postgres
from tests.faults.evidence import TERMINATE
from tests.faults.lab import DEADLINE, WINDOW, Lab
from tests.faults.proxy import Proxy
from tests.faults.queues import RabbitQueue
from tests.faults.route_faults import RouteFaults
from tests.faults.row_faults import RowFaults
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until

FAULTS: Final = 12
RELAYS: Final = 2
#: How long a fault lasts, in seconds: some are over before a deadline, some are not.
_SHORTEST, _LONGEST = 0.2, 4.0
_SENT_SINCE: Final = "SELECT 1 FROM outbox.receipt WHERE sent_at > to_timestamp(%s) LIMIT 1"
#: After each of these a window of messages may be sent twice.
_INCIDENTS: Final = ("broker_lost", "database_lost", "suspects_isolated")
#: And after each of these, by each relay.
_BY_EACH_RELAY: Final = ("queue frozen", "declaration hanging", "snapshot restored")


class Soak:
    """A lab, its relays, and everything that may happen to them."""

    def __init__(self, lab: Lab, database: Postgres, seed: int) -> None:
        self._lab, self._database = lab, database
        self._chance = random.Random(seed)
        self._all: list[Relay] = []
        self._relays = [self._start() for _ in range(RELAYS)]
        self._killed = 0
        self._faults: dict[str, Callable[[], None]] = {
            "relay killed": self._kill_relay,
            "relay paused": self._pause_relay,
            "relay told to go": self._stop_relay,
            "broker killed": self._kill_broker,
            "broker frozen": self._freeze_broker,
            "broker refuses": lambda: self._disturb(lab.to_broker, lab.to_broker.refuse),
            "broker half-open": lambda: self._disturb(lab.to_broker, lab.to_broker.drop),
            "broker held": lambda: self._disturb(lab.to_broker, lab.to_broker.hold),
            "broker slow": lambda: self._disturb(
                lab.to_broker, lambda: lab.to_broker.throttle(20_000)
            ),
            "broker reset": lambda: self._disturb(lab.to_broker, lab.to_broker.reset),
            "database killed": self._kill_database,
            "database sessions ended": self._end_sessions,
            "database half-open": lambda: self._disturb(lab.to_database, lab.to_database.drop),
            "database held": lambda: self._disturb(lab.to_database, lab.to_database.hold),
            "database reset": lambda: self._disturb(lab.to_database, lab.to_database.reset),
            "table locked": self._lock_table,
        }
        self._rows = RowFaults(lab, database, self._duration)
        self._faults |= self._rows.faults
        self._own_queues: list[str] = []
        queue = lab.queue
        if isinstance(queue, RabbitQueue):
            routes = RouteFaults(lab, queue, self._duration)
            self._own_queues = routes.queues
            self._faults |= routes.faults
            self._faults["queue deleted"] = lambda: lab.delete_queue(queue)

    def run(self) -> None:
        """Strike, see that work goes on, strike again; then check every promise."""
        struck: Counter[str] = Counter()
        with self._lab.producer(pause=0.02):
            self._recover()
            for _ in range(FAULTS):
                name = self._chance.choice(sorted(self._faults))
                print(f"    {name}", flush=True)
                with self._lab.fault(lambda: True, count=0):
                    self._faults[name]()  # asserts by itself that it has struck
                struck[name] += 1
                self._recover()
        self._lab.faults = self._twice(struck)
        self._lab.finish(
            queues=("celery", *self._own_queues),
            duplicates=self._lab.faults * WINDOW + self._rows.sent_again,
            note=", ".join(f"{n} x {name}" for name, n in sorted(struck.items())),
        )

    def _twice(self, struck: Counter[str]) -> int:
        """How many times a window of messages may have been sent twice."""
        incidents = sum(len(relay.events(name)) for relay in self._all for name in _INCIDENTS)
        by_each = RELAYS * sum(struck[name] for name in _BY_EACH_RELAY)
        return self._killed + incidents + struck["relay paused"] + struck["rows locked"] + by_each

    def _start(self) -> Relay:
        # Returned messages are charged, and queues are deleted here.
        relay = self._lab.relay(OUTBOX_MAX_ATTEMPTS="100", wait=False)
        self._all.append(relay)
        return relay

    def _recover(self) -> None:
        """Wait until messages are sent again, keeping relays alive."""
        since = time()

        def sent() -> bool:
            for place, relay in enumerate(self._relays):
                if relay.process.poll() is not None:
                    self._relays[place] = self._start()
            return bool(self._lab.run(_SENT_SINCE, since))

        wait_until(sent, DEADLINE, "messages that are sent again")

    def _duration(self) -> float:
        return self._chance.uniform(_SHORTEST, _LONGEST)

    def _lasts(self) -> None:
        sleep(self._duration())

    def _relay(self) -> Relay:
        return self._chance.choice(self._relays)

    def _kill_relay(self) -> None:
        relay = self._relay()
        relay.kill()
        assert relay.process.poll() is not None
        self._killed += 1

    def _pause_relay(self) -> None:
        resume = self._relay().freeze()
        self._lasts()
        resume()

    def _stop_relay(self) -> None:
        relay = self._relay()
        relay.wait_for_event("relay_started")  # until then the signal is Python's to handle
        assert relay.stop() in (0, 1)

    def _kill_broker(self) -> None:
        server = self._lab.queue.server
        before = server.process.pid
        server.kill()
        self._lasts()
        assert server.start().process.pid != before

    def _freeze_broker(self) -> None:
        with self._lab.queue.server.frozen():
            self._lasts()

    def _disturb(self, link: Proxy, begin: Callable[[], None]) -> None:
        before = link.evidence.total()
        begin()
        self._lasts()
        wait_until(lambda: link.evidence.total() > before, DEADLINE, "bytes that are disturbed")
        link.heal()

    def _kill_database(self) -> None:
        before = self._database.process.pid
        self._database.kill()
        self._lasts()
        assert self._database.start().process.pid != before

    def _end_sessions(self) -> None:
        wait_until(lambda: self._lab.run(TERMINATE)[0][0], DEADLINE, "a session to end")

    def _lock_table(self) -> None:
        with psycopg.connect(self._lab.database) as other:
            other.execute("LOCK TABLE outbox.ready IN ACCESS EXCLUSIVE MODE")
            self._lasts()
