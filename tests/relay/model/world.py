"""One database, one broker and two relays, what can be done to them, and what must hold meanwhile.

The relays are the real ones, down to the bytes of their AMQP frames; servers, sockets and clocks
are the model's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Final
from unittest.mock import patch

import structlog

from outbox_relay.broker.amqp import connection as connection_module
from outbox_relay.broker.amqp import line as line_module
from outbox_relay.broker.amqp import publisher as publisher_module
from outbox_relay.broker.amqp import suspects as suspects_module
from outbox_relay.broker.amqp import topology as topology_module
from outbox_relay.broker.amqp.publisher import AmqpPublisher
from outbox_relay.broker.amqp.suspects import SuspectPublisher
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.broker.publisher import Publisher
from outbox_relay.loop import cycle as cycle_module
from outbox_relay.loop import quarantine as quarantine_module
from outbox_relay.loop import relay as relay_module
from outbox_relay.loop.relay import Relay
from outbox_relay.observe.health import Health
from outbox_relay.observe.metrics import Metrics
from outbox_relay.settings import Secret, Settings
from tests.relay.model import broker as broker_module
from tests.relay.model.broker import ModelBroker, ModelOpening
from tests.relay.model.database import ModelDatabase, ModelStore
from tests.relay.model.hub import Clock, Event, Process

NOWHERE: Final = Secret("NOWHERE", path=Path("/nonexistent"))
WINDOW: Final = 6
SETTINGS: Final = Settings(
    NOWHERE,
    NOWHERE,
    batch_size=4,
    window=WINDOW,
    max_attempts=2,
    retry_delay=0.1,
    lease=2.0,
    confirm_timeout=3.0,
    grace_period=1.0,
)
#: What a row may be like. Only of the HEALTHY every one must be sent at last.
GOOD, LATER, FULL, HANGING = "good", "later", broker_module.FULL, broker_module.HANGING
FROZEN, FORBIDDEN = broker_module.FROZEN, broker_module.FORBIDDEN
POISON, LETHAL = broker_module.POISON, broker_module.LETHAL
UNROUTABLE, INVALID = broker_module.UNROUTABLE, "invalid"
HEALTHY: Final = frozenset({GOOD, LATER, FULL, HANGING, FROZEN, FORBIDDEN})
KINDS: Final = (GOOD, LATER, FULL, HANGING, FROZEN, FORBIDDEN, POISON, LETHAL, UNROUTABLE, INVALID)
#: Virtual seconds, and steps, within which everything has settled once all faults are healed.
PATIENCE: Final = 150.0
STEPS: Final = 60_000


class Machine:
    """A relay in its process; started again after it was killed or has ended."""

    def __init__(self, world: "World", first_claim_id: int) -> None:
        self._world = world
        self.first_claim_id = first_claim_id
        self.process = Process(world.clock, self._run)
        self.relay: Relay | None = None

    def _run(self) -> None:
        world, process = self._world, self.process

        def open_publisher(*, for_suspects: bool = False, elsewhere: bool = False) -> Publisher:
            kind = SuspectPublisher if for_suspects else AmqpPublisher
            topology = Topology("", declare=True, room=WINDOW // 2, stay=SETTINGS.lease / 2)
            return kind("", topology, SETTINGS.confirm_timeout)

        self.relay = Relay(
            SETTINGS,
            lambda: ModelStore(world.database, process),  # type: ignore[arg-type,return-value]  # a stand-in
            open_publisher,
            self.first_claim_id,
            world.metrics,
            Health(),
            lambda: (0, 0),
        )
        self.relay.run()


class World:
    """Everything, and the rules of its game."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.database = ModelDatabase(self.clock)
        self.broker = ModelBroker()
        self.metrics = METRICS
        self.kinds: dict[int, str] = {}
        self._interrupted = 0
        self._started = 0
        self._running: Process | None = None
        self.machines = [self._machine(), self._machine()]

    def _machine(self) -> Machine:
        self._started += 1
        return Machine(self, self._started << 32)

    @property
    def running(self) -> Process:
        """The process that runs now."""
        assert self._running is not None
        return self._running

    def produce(self, kind: str) -> int:
        """Insert a row; its transaction stays open."""
        columns = {"properties": "[]"} if kind == INVALID else {}
        if kind == HANGING:
            columns["declare"] = f'[{{"kind": "queue", "name": "{HANGING}"}}]'
        key = "celery" if kind in (GOOD, LATER, INVALID) else kind
        available_in = 0.5 if kind == LATER else 0.0
        id_ = self.database.insert(available_in, routing_key=key, **columns)
        self.kinds[self.database.newest] = kind
        return id_

    def kind(self, id_: int) -> str:
        """Of the message that has this id now."""
        return self.kinds[self.database.identity(id_)]

    def step(self, which: int, times: int = 1) -> None:
        """Let one relay go on until it has waited so many times."""
        for _ in range(times):
            machine = self.machines[which]
            if not machine.process.alive:
                machine = self.machines[which] = self._machine()
            if self.clock.now - machine.process.seen > SETTINGS.lease / 4:
                self._interrupted += 1  # for so long that its claims may have run out
            self._running = machine.process
            machine.process.step()
            self._running = None
            self.check()

    def kill(self, which: int) -> None:
        """SIGKILL."""
        self._interrupted += 1
        self.machines[which].process.kill()

    @property
    def faults(self) -> int:
        """How often a relay was cut off: each time may duplicate what it had in flight."""
        return self._interrupted + self.broker.connected + self.database.connected

    @property
    def tally(self) -> dict[str, int]:
        """How often the rare things have happened: a game without them proves little."""
        return {
            "rows sent": len(set(self.database.receipts)),
            "rows dead": len(self.database.parked),
            "duplicates": self.broker.stored.total() - len(self.broker.stored),
            "relays killed or frozen": self._interrupted,
            "broker connections": self.broker.connected,
            "database sessions": self.database.connected,
            "suspects": self.database.suspects,
            "stale refusals": self.database.stale,
            "late commits": self.database.late,
            "locked rows passed over": self.database.passed_over,
            "declarations unanswered": self.broker.hung,
            "connections stopped by a frozen queue": self.broker.stopped,
            "receipts undone": self.database.undone,
        }

    def check(self) -> None:
        """What must hold at every moment."""
        database, broker = self.database, self.broker
        sent = set(database.receipts)
        assert sent <= broker.stored.keys(), "marked sent, but the broker has not taken it"
        work = {database.identity(id_) for id_ in (*database.ready, *database.parked)}
        assert not sent & work, "sent, and then not"
        assert broker.read <= database.committed, "published, but never committed"
        for id_, row in database.ready.items():
            assert not row.attempts or self.kind(id_) not in HEALTHY, "a healthy row paid"
        for id_, waiting in database.parked.items():
            if self.kind(id_) in HEALTHY:
                assert not waiting.attempts, "a healthy row paid"
                assert waiting.state != "dead", "a healthy row is dead"

    def converge(self) -> None:
        """Heal every fault; then everything settles, and little was sent twice."""
        self.database.up = True
        self.database.locked = set()
        self.broker.heal()
        for id_ in list(self.database.open):
            self.database.commit(id_)
        for machine in self.machines:
            if not machine.process.alive or machine.relay is None:
                continue
            if machine.relay._stopping.is_set():
                machine.process.kill()
        since = self.clock.now
        for _ in range(STEPS):
            self.step(0)
            self.step(1)
            if self._settled():
                break
            assert self.clock.now - since < PATIENCE, f"held up: {self._left()}"
        else:
            raise AssertionError(f"held up: {self._left()}")
        sent = set(self.database.receipts)
        for id_ in self.database.messages:
            identity, kind = self.database.identity(id_), self.kind(id_)
            assert (identity in sent) == (kind in HEALTHY), f"{identity} {kind}"
        duplicates = self.broker.stored.total() - len(self.broker.stored)
        permitted = self.faults * (WINDOW + 1) + self.database.undone
        assert duplicates <= permitted, f"{duplicates} duplicates"

    def _settled(self) -> bool:
        parked = self.database.parked.values()
        return not self.database.ready and all(row.state == "dead" for row in parked)

    def _left(self) -> object:
        return self.database.ready, self.database.parked

    def end(self) -> None:
        """Stop both relays."""
        for machine in self.machines:
            machine.process.kill()


#: One for all: what it counts is of no interest here, and to make one takes long.
METRICS: Final = Metrics()


@contextmanager
def worlds() -> Iterator[Callable[[], World]]:
    """Make worlds, one after another; meanwhile, time and sockets are theirs."""
    current: list[World] = []

    def create() -> World:
        current[:] = [World()]
        return current[0]

    def now() -> float:
        return current[0].clock.now if current else 0.0

    def link(sock: broker_module.Connection, *_: object) -> broker_module.Connection:
        return sock

    def connect(url: str) -> broker_module.Connection:
        return current[0].broker.connect(current[0].running)

    def opening(_: str) -> ModelOpening[broker_module.Connection]:
        world = current[0]
        return ModelOpening(lambda: world.broker.connect(world.running, for_messages=False))

    def bypass(_: str) -> ModelOpening[broker_module.Connection]:
        return ModelOpening(lambda: current[0].broker.connect(current[0].running))

    def suspects(open_publisher: Callable[[], Publisher], _: object) -> ModelOpening[Publisher]:
        return ModelOpening(open_publisher)

    def event() -> Event:
        return Event(current[0].running)

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        with (
            patch.object(relay_module, "monotonic", now),
            patch.object(cycle_module, "monotonic", now),
            patch.object(relay_module, "threading", SimpleNamespace(Event=event)),
            patch.object(publisher_module, "monotonic", now),
            patch.object(line_module, "monotonic", now),
            patch.object(publisher_module, "open_connection", connect),
            patch.object(publisher_module, "BackgroundOpening", bypass),
            patch.object(quarantine_module, "Background", suspects),
            patch.object(suspects_module, "open_connection", connect),
            patch.object(suspects_module, "monotonic", now),
            patch.object(topology_module, "BackgroundOpening", opening),
            patch.object(connection_module, "Link", link),
        ):
            yield create
    finally:
        structlog.reset_defaults()
