"""Whose turn it is."""

from outbox_relay.many.rota import Rota


def test_each_has_a_turn_in_its_period() -> None:
    """And none has two before the others have had one."""
    rota, often = Rota(), {"a": 10.0, "b": 10.0, "c": 10.0}
    assert rota.next(often, 0.0) in (None, *often)
    first = [rota.next(often, 20.0) for _ in range(4)]
    assert sorted(name for name in first if name) == ["a", "b", "c"]
    assert first[3] is None
    assert rota.next(often, 29.9) is None
    assert rota.next(often, 30.0) in often


def test_those_of_many_that_come_at_once_are_spread_out() -> None:
    """A start is not followed by two hundred turns at once."""
    rota, often = Rota(), {f"n{number}": 100.0 for number in range(200)}
    turns = [rota.next(often, 1000.0 + second) for second in range(50) for _ in range(20)]

    assert 30 < len([name for name in turns if name]) < 170


def test_who_rests_has_fewer_turns() -> None:
    """Until its period is shorter again."""
    rota = Rota()
    assert rota.next({"a": 0.0}, 0.0) == "a"
    assert rota.next({"a": 900.0}, 100.0) is None
    assert rota.next({"a": 60.0}, 100.0) == "a"


def test_without_anybody_it_is_nobodys() -> None:
    """And who is gone is forgotten."""
    rota = Rota()
    assert rota.next({"a": 0.0}, 0.0) == "a"
    assert rota.next({}, 1.0) is None
