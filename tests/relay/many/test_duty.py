"""What the watch of a database does, and when."""

from outbox_relay.core.backoff import LOOK_EVERY
from outbox_relay.many.duty import (
    DOUBT,
    FEW,
    LOOK_EVERY_DEAF,
    TRY_AGAIN,
    TRY_OTHERS,
    WAITING_AGAIN,
    Duty,
)
from outbox_relay.postgres.lookout import Glance

NOTHING = Glance(work=False, due=None, waits=False)
WORK = Glance(work=True, due=None, waits=False)


def resting(*names: str) -> Duty:
    """A duty whose schemas are all hung up, looked at and empty, at the time 0."""
    duty = Duty()
    for name in names:
        duty.add(name)
    duty.lay_down(duty.to_lie_down(0.0), set(names), set(), 0.0)
    assert duty.to_look(0.0) == (list(names), True)
    duty.seen(dict.fromkeys(names, NOTHING), 0.0)
    assert duty.calls(0.0) == []
    return duty


def served(duty: Duty, name: str, now: float) -> None:
    """Let one call, which somebody serves from then on."""
    duty.seen({name: WORK}, now)
    assert duty.calls(now) == [name]


def test_all_are_looked_at_together_and_seldom() -> None:
    """One statement for all of them."""
    duty = resting("a", "b")
    assert duty.pause(0.0) == LOOK_EVERY
    assert duty.to_look(LOOK_EVERY - 0.1) == ([], False)
    assert duty.to_look(LOOK_EVERY) == (["a", "b"], True)


def test_one_that_rings_is_looked_at_alone() -> None:
    """And calls if there is something to do."""
    duty = resting("a", "b")
    duty.rang({"b", "unknown"})
    assert duty.pause(1.0) == 0.0
    assert duty.to_look(1.0) == (["b"], False)
    duty.seen({"b": WORK}, 1.0)
    assert duty.calls(1.0) == ["b"]
    assert not duty.watches("b")
    assert duty.knows("b")


def test_many_that_ring_are_looked_at_with_all() -> None:
    """That is one statement, too."""
    names = [f"n{number}" for number in range(FEW + 1)]
    duty = resting(*names)
    duty.rang(names)
    assert duty.to_look(1.0) == (names, True)


def test_what_is_due_calls_at_its_time() -> None:
    """Without another look."""
    duty = resting("a")
    duty.seen({"a": Glance(work=False, due=1.5, waits=False)}, 0.0)
    assert duty.pause(0.0) == 1.5
    assert duty.calls(1.4) == []
    assert duty.calls(1.5) == ["a"]


def test_one_that_is_returned_is_hung_up_and_then_looked_at() -> None:
    """What was committed between the two bells rang nobody."""
    duty = resting("a")
    served(duty, "a", 1.0)
    duty.returned("a", 1.5, moved=True)
    assert duty.to_lie_down(1.5) == ["a"]
    duty.lay_down(["a"], {"a"}, set(), 1.5)
    assert duty.to_look(1.5) == (["a"], False)


def test_while_a_transaction_is_open_it_is_tried_and_looked_at_again_and_again() -> None:
    """Its commit would ring nobody; less often the longer it lasts."""
    duty = resting("a")
    served(duty, "a", 1.0)
    duty.returned("a", 1.0, moved=True)
    duty.lay_down(["a"], set(), set(), 1.0)
    assert duty.to_look(1.0) == (["a"], False)
    assert duty.to_lie_down(1.0) == []
    assert duty.to_lie_down(1.0 + TRY_AGAIN) == ["a"]
    duty.lay_down(["a"], set(), set(), 2.0)
    assert duty.to_lie_down(2.0 + TRY_AGAIN) == []
    assert duty.to_lie_down(2.0 + 2 * TRY_AGAIN) == ["a"]


def test_where_another_relay_is_rung_it_only_looks() -> None:
    """And tries seldom to take its place."""
    duty = Duty()
    duty.add("a")
    duty.lay_down(["a"], set(), {"a"}, 0.0)
    assert duty.to_look(0.0) == (["a"], True)
    assert duty.pause(0.0) == LOOK_EVERY
    assert duty.to_lie_down(TRY_OTHERS - 1) == []
    assert duty.to_lie_down(TRY_OTHERS) == ["a"]


def test_where_nobody_can_be_rung_it_looks_more_often() -> None:
    """Behind a pooler, say."""
    duty = Duty()
    duty.deaf = True
    duty.add("a")
    assert duty.to_lie_down(0.0) == []
    assert duty.to_look(0.0) == (["a"], True)
    assert duty.pause(0.0) == LOOK_EVERY_DEAF


def test_work_that_nobody_finds_is_doubted_unless_it_rings() -> None:
    """Twice as long each time."""
    duty = resting("a")
    served(duty, "a", 1.0)
    duty.returned("a", 1.0, moved=False)
    duty.seen({"a": WORK}, 1.0)
    assert duty.calls(1.0) == []
    assert duty.calls(1.0 + DOUBT) == ["a"]
    duty.returned("a", 2.0, moved=False)
    duty.seen({"a": WORK}, 2.0)
    assert duty.calls(2.0 + DOUBT) == []
    duty.rang({"a"})
    assert duty.calls(2.0 + DOUBT) == ["a"]


def test_what_waits_for_its_route_is_tried_now_and_then() -> None:
    """Its relay would try it, and has no seat."""
    waits = Glance(work=False, due=None, waits=True)
    duty = resting("a")
    served(duty, "a", 1.0)
    duty.returned("a", 1.0, moved=True)
    duty.seen({"a": waits}, 1.0)
    assert duty.calls(1.0) == []
    assert duty.calls(1.0 + WAITING_AGAIN) == ["a"]


def test_one_that_is_dropped_is_forgotten() -> None:
    """Whether it is watched or served."""
    duty = resting("a", "b")
    served(duty, "a", 1.0)
    duty.drop("a")
    duty.drop("b")
    duty.returned("a", 1.0, moved=True)
    assert not duty.knows("a")
    assert not duty.watches("b")


def test_a_new_session_begins_from_nothing() -> None:
    """Its bells are to be hung up again, and everything is to be looked at."""
    duty = resting("a")
    duty.start_over()
    assert duty.to_lie_down(1.0) == ["a"]
    assert duty.to_look(1.0) == (["a"], True)
