"""The real relay in a model world keeps its promises, whatever happens; with a mistake it does not.

`make test-faults` plays the same game for much longer (tests/faults/test_model.py).
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.relay.model.broker import HANGING
from tests.relay.model.machine import Chaos
from tests.relay.model.mutants import MUTANTS, answers_awaited_for_ever, healthy_routes_forgotten
from tests.relay.model.world import FROZEN, GOOD, KINDS, SETTINGS, WINDOW, World, worlds

#: The same games each time: a failure is a failure for everybody.
SHORT = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
#: Many times more games than any mutant has survived so far.
HUNT = settings(SHORT, max_examples=1000, phases=[Phase.generate], report_multiple_bugs=False)


def play(budget: settings, tally: Counter[str] | None = None, number: int | None = None) -> None:
    """Play as many games; raises what the first lost one raises. `tally` counts what happened."""
    with worlds() as create:

        class Game(Chaos):
            def create(self) -> World:
                return create()

            def teardown(self) -> None:
                super().teardown()
                if tally is not None and hasattr(self, "world"):
                    tally.update(self.world.tally)

        game = Game if number is None else seed(number)(Game)
        run_state_machine_as_test(game, settings=budget)


def test_the_relay_keeps_its_promises() -> None:
    """Two relays, chaos, and nothing lost, nothing stuck; and what is rare does happen."""
    tally: Counter[str] = Counter()

    play(SHORT, tally)

    assert {name for name, count in tally.items() if count} >= {
        "rows sent",
        "rows dead",
        "duplicates",
        "relays killed or frozen",
        "broker connections",
        "database sessions",
        "suspects",
        "stale refusals",
        "late commits",
        "locked rows passed over",
        "receipts undone",
        "declarations unanswered",
        "connections stopped by a frozen queue",
    }


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant.__name__))
def test_every_mistake_is_noticed(mutant: Callable[[], AbstractContextManager[object]]) -> None:
    """Each mutant breaks a promise within the same games, every time."""
    with mutant(), pytest.raises(AssertionError):
        play(HUNT)


def test_without_a_fault_nothing_is_sent_twice() -> None:
    """Two relays at work side by side on ten windows of good rows."""
    with worlds() as create:
        world = create()
        for _ in range(10 * WINDOW):
            world.database.commit(world.produce(GOOD))
        try:
            world.converge()
        finally:
            world.end()

        assert set(world.broker.stored.values()) == {1}
        assert len(world.broker.stored) == 10 * WINDOW


def test_a_world_without_faults_settles_every_kind_of_row() -> None:
    """What can be sent is sent, what cannot is dead."""
    with worlds() as create:
        world = create()
        for kind in KINDS * 3:
            world.database.commit(world.produce(kind))
        try:
            world.converge()
        finally:
            world.end()


def test_a_frozen_queue_holds_up_no_other() -> None:
    """What stood behind it is sent while it is frozen, and all of its own when it is not."""
    with worlds() as create:
        world = create()
        world.broker.frozen = True
        good = []
        for kind in (FROZEN, FROZEN, FROZEN, GOOD, GOOD):
            id_ = world.produce(kind)
            world.database.commit(id_)
            good += [world.database.identity(id_)] * (kind == GOOD)
        try:
            since = world.clock.now
            while not set(world.database.receipts) >= set(good):
                world.step(0)
                assert world.clock.now - since < SETTINGS.confirm_timeout, "held up"
            assert world.broker.stopped
            world.converge()
        finally:
            world.end()


def test_a_way_around_that_forgets_somebody_is_noticed() -> None:
    """As long as nothing else goes wrong, that would make up for it."""
    with healthy_routes_forgotten(), pytest.raises(AssertionError, match="held up"):
        test_a_frozen_queue_holds_up_no_other()


def test_an_unanswered_declaration_lets_go_of_its_messages() -> None:
    """They are tried again another time, and the claim that held them ends."""
    with worlds() as create:
        world = create()
        world.broker.hanging = True
        id_ = world.produce(HANGING)
        world.database.commit(id_)
        try:
            since = world.clock.now
            while id_ not in world.database.parked:
                world.step(0)
                assert world.clock.now - since < SETTINGS.confirm_timeout, "held for ever"
            world.broker.hanging = False
            world.converge()
        finally:
            world.end()


def test_waiting_for_an_answer_for_ever_is_noticed() -> None:
    """In the games, an outage of the broker nearly always comes to its help."""
    with answers_awaited_for_ever(), pytest.raises(AssertionError, match="held for ever"):
        test_an_unanswered_declaration_lets_go_of_its_messages()
