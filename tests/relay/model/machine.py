"""The rules of the game: whatever may happen to a relay, in any order."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.relay.model.world import FROZEN, GOOD, KINDS, SETTINGS, World

relays = st.sampled_from([0, 1])


class Chaos(RuleBasedStateMachine):
    """Producers, faults and two relays. `create` makes the world."""

    def create(self) -> World:
        """A fresh world."""
        raise NotImplementedError

    @initialize(kinds=st.lists(st.sampled_from(KINDS), max_size=8))
    def begin(self, kinds: list[str]) -> None:
        """Some rows are there already."""
        self.world = self.create()
        for kind in kinds:
            self.world.database.commit(self.world.produce(kind))

    @rule(kind=st.sampled_from(KINDS), fate=st.sampled_from(["commit", "late", "roll back"]))
    def produce(self, kind: str, fate: str) -> None:
        """Insert a row; a transaction may stay open while later ones commit."""
        id_ = self.world.produce(kind)
        if fate == "commit":
            self.world.database.commit(id_)
        elif fate == "roll back":
            self.world.database.roll_back(id_)

    @precondition(lambda self: self.world.database.open)
    @rule()
    def commit_late(self) -> None:
        """The oldest open transaction commits."""
        self.world.database.commit(min(self.world.database.open))

    @rule(which=relays, times=st.integers(1, 60))
    def step(self, which: int, times: int) -> None:
        """A relay goes on."""
        self.world.step(which, times)

    @rule(which=relays)
    def kill(self, which: int) -> None:
        """SIGKILL; at its next step another relay takes its place."""
        self.world.kill(which)

    @rule(which=relays)
    def terminate(self, which: int) -> None:
        """SIGTERM."""
        relay = self.world.machines[which].relay
        if relay is not None:
            relay.stop()

    @rule(which=relays)
    def freeze(self, which: int) -> None:
        """SIGSTOP, until its claims have run out and the other relay has been at work."""
        until = self.world.clock.now + 1.5 * SETTINGS.lease
        for _ in range(400):
            self.world.step(1 - which)
            if self.world.clock.now > until:
                break

    @rule(seconds=st.sampled_from([0.2, 1.0, 2.5, 4.0]))
    def advance(self, seconds: float) -> None:
        """Time passes, and nobody runs."""
        self.world.clock.now += seconds

    @rule()
    def database(self) -> None:
        """It goes away, or comes back."""
        if self.world.database.up:
            self.world.database.fail()
        else:
            self.world.database.up = True

    @rule(which=relays)
    def outage(self, which: int) -> None:
        """While messages are in flight, the database is away for longer than their claims last."""
        world = self.world
        world.broker.holding = True
        world.step(which, 30)
        world.database.fail()
        world.broker.resume()
        world.step(which, 10)
        world.clock.now += 1.5 * SETTINGS.lease
        world.database.up = True
        world.step(which, 30)

    @rule(which=relays)
    def lock(self, which: int) -> None:
        """While messages are in flight, somebody's transaction locks their rows, and stays open."""
        world = self.world
        world.broker.holding = True
        world.step(which, 30)
        world.database.locked |= world.database.ready.keys()
        world.broker.resume()
        world.step(which, 10)

    @precondition(lambda self: self.world.database.locked)
    @rule()
    def unlock(self) -> None:
        """It ends."""
        self.world.database.locked.clear()

    @rule()
    def snapshot(self) -> None:
        """A copy is made of the disk."""
        self.world.database.take_snapshot()

    @rule(kinds=st.lists(st.sampled_from(KINDS), max_size=4))
    def put_back(self, kinds: list[str]) -> None:
        """The copy is put back while messages are in flight; new ones get the ids of lost ones."""
        world = self.world
        world.step(0, 5)
        world.database.put_back()
        for kind in kinds:
            world.database.commit(world.produce(kind))

    @rule()
    def broker(self) -> None:
        """It goes away, or comes back."""
        if self.world.broker.up:
            self.world.broker.fail()
        else:
            self.world.broker.up = True

    @rule()
    def alarm(self) -> None:
        """It stops reading, or starts again."""
        self.world.broker.set_alarm(not self.world.broker.alarm)

    @rule()
    def hold(self) -> None:
        """It stores and confirms only what it is told to, or everything again."""
        self.world.broker.holding = not self.world.broker.holding

    @precondition(lambda self: self.world.broker.holding)
    @rule(data=st.data(), together=st.booleans())
    def confirm(self, data: st.DataObject, together: bool) -> None:
        """One held message is stored and confirmed, or it and all before it."""
        self.world.broker.release(lambda last: data.draw(st.integers(0, last)), together=together)

    @rule()
    def fill(self) -> None:
        """A queue is full, or has room again."""
        self.world.broker.full = not self.world.broker.full

    @rule()
    def hang(self) -> None:
        """Declarations of a queue are not answered, or new ones are again."""
        self.world.broker.hanging = not self.world.broker.hanging

    @rule(which=relays)
    def freeze_queue(self, which: int) -> None:
        """A queue does not answer, while much is sent to it and something to others."""
        world = self.world
        world.broker.frozen = True
        for kind in (FROZEN, FROZEN, FROZEN, GOOD, GOOD):
            world.database.commit(world.produce(kind))
        world.step(which, 30)
        world.clock.now += SETTINGS.confirm_timeout / 2
        world.step(which, 30)

    @precondition(lambda self: self.world.broker.frozen)
    @rule()
    def thaw_queue(self) -> None:
        """It stores what it was sent."""
        self.world.broker.frozen = False
        for connection in self.world.broker.connections:
            connection.work()

    @rule()
    def forbid(self) -> None:
        """A right to publish is taken away, or given again."""
        self.world.broker.forbidden = not self.world.broker.forbidden

    def teardown(self) -> None:
        """Once every fault is healed, everything settles."""
        if hasattr(self, "world"):
            try:
                self.world.check()
                self.world.converge()
            finally:
                self.world.end()
