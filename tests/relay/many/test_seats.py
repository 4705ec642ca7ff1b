"""Who gets a seat, and who gives one up."""

from outbox_relay.many.seats import (
    AWAY,
    LINGER,
    LINGER_SCARCE,
    MAX_AWAY,
    PATIENCE,
    SLICE,
    Candidate,
    Report,
    Seats,
)

BUSY = Report()


def candidate(name: str, database: str = "db", broker: str = "mq") -> Candidate:
    """An outbox that wants a seat."""
    return Candidate(name, database, broker)


def seated(seats: Seats, *candidates: Candidate, now: float = 0.0) -> None:
    """Let these have a seat."""
    for each in candidates:
        seats.wants(each)
    assert seats.next(now) == [each.name for each in candidates]


def test_seats_are_given_in_the_order_of_asking() -> None:
    """As many as there are; the next one follows when one is free."""
    seats = Seats(2, 2)
    for name in "cab":
        seats.wants(candidate(name))

    assert seats.next(0.0) == ["c", "a"]
    assert seats.next(0.0) == []
    seats.left("c")
    assert seats.next(0.0) == ["b"]


def test_asking_twice_is_asking_once() -> None:
    """Neither while it waits nor while it has one."""
    seats = Seats(1, 1)
    seats.wants(candidate("a"))
    seats.wants(candidate("a"))
    assert seats.next(0.0) == ["a"]
    seats.wants(candidate("a"))
    seats.left("a")
    assert seats.next(0.0) == []


def test_who_still_publishes_gives_its_seat_to_those_that_wait_after_a_while() -> None:
    """The one that has had it longest, and no more than are waited for."""
    seats = Seats(2, 2)
    seated(seats, candidate("a"), now=0.0)
    seated(seats, candidate("b"), now=0.1)
    reports = {"a": BUSY, "b": BUSY}
    assert seats.to_leave(reports, SLICE + 1) == []

    seats.wants(candidate("c"))
    assert seats.to_leave(reports, SLICE - 0.1) == []
    assert seats.to_leave(reports, SLICE + 1) == ["a"]
    assert seats.to_leave(reports, SLICE + 1) == []


def test_one_with_nothing_to_do_goes_first() -> None:
    """At once, if somebody waits."""
    seats = Seats(2, 2)
    seated(seats, candidate("a"), candidate("b"))
    seats.wants(candidate("c"))

    assert seats.to_leave({"a": BUSY, "b": Report(idle=0.01)}, SLICE + 1) == ["b"]


def test_one_with_nothing_to_do_lingers_while_seats_are_free() -> None:
    """Less long while few are."""
    seats = Seats(10, 10)
    seated(seats, candidate("a"))
    assert seats.to_leave({"a": Report(idle=LINGER - 0.1)}, 9.0) == []
    assert seats.to_leave({"a": Report(idle=LINGER)}, 9.0) == ["a"]

    full = Seats(1, 1)
    seated(full, candidate("a"))
    assert full.to_leave({"a": Report(idle=LINGER_SCARCE)}, 9.0) == ["a"]


def test_no_database_has_more_than_its_share() -> None:
    """And those of it that wait replace others of it, not of another."""
    seats = Seats(4, 2)
    for name in "abc":
        seats.wants(candidate(name, database="one"))
    seats.wants(candidate("d", database="two"))
    assert seats.next(0.0) == ["a", "b", "d"]

    reports = dict.fromkeys("abd", BUSY)
    assert seats.to_leave(reports, SLICE) == ["a"]
    seats.left("a")
    assert seats.next(SLICE) == ["c"]


def test_of_a_broker_that_is_away_one_outbox_at_a_time_has_a_seat() -> None:
    """After a pause that doubles; the others' seats are free for other brokers."""
    seats = Seats(3, 3)
    seated(seats, *(candidate(name, broker="gone") for name in "abc"))
    away = Report(without_broker=PATIENCE, at_work=False)
    assert seats.to_leave(dict.fromkeys("abc", away), 10.0) == ["a", "b", "c"]
    for name in "abc":
        seats.left(name)
        seats.wants(candidate(name, broker="gone"))
    seats.wants(candidate("d"))

    assert seats.next(10.0) == ["d"]
    assert seats.next(10.0 + AWAY) == ["a"]
    assert seats.next(10.0 + AWAY) == []
    assert seats.to_leave({"a": away, "d": BUSY}, 20.0) == ["a"]
    seats.left("a")
    assert seats.next(20.0 + AWAY) == []
    assert seats.next(20.0 + 2 * AWAY) == ["b"]


def test_a_broker_that_is_back_takes_all() -> None:
    """As soon as one seat has reached it."""
    seats = Seats(3, 3)
    away = Report(without_broker=PATIENCE, at_work=False)
    seated(seats, candidate("a", broker="gone"))
    seats.to_leave({"a": away}, 0.0)
    seats.left("a")
    for name in "abc":
        seats.wants(candidate(name, broker="gone"))
    assert seats.next(MAX_AWAY) == ["a"]

    assert seats.to_leave({"a": BUSY}, MAX_AWAY) == []
    assert seats.next(MAX_AWAY) == ["b", "c"]


def test_a_seat_without_its_database_is_given_up() -> None:
    """The watch says when it is back."""
    seats = Seats(3, 3)
    seated(seats, candidate("a"))

    assert seats.to_leave({"a": Report(without_database=PATIENCE)}, 9.0) == ["a"]


def test_who_is_gone_waits_for_no_seat() -> None:
    """Its outbox is not served any more."""
    seats = Seats(1, 1)
    seats.wants(candidate("a"))
    seats.gone("a")

    assert seats.next(0.0) == []
    assert seats.taken == 0


def test_one_that_has_failed_waits_a_while_for_its_next_seat() -> None:
    """And nobody gives up a seat for it meanwhile."""
    seats = Seats(1, 1)
    seated(seats, candidate("failing"))
    seats.left("failing", again_at=10.0)
    seats.wants(candidate("failing"))
    seats.wants(candidate("other"))
    assert seats.next(1.0) == ["other"]
    assert seats.to_leave({"other": BUSY}, 9.0) == []
    assert seats.to_leave({"other": BUSY}, 10.0) == ["other"]
    seats.left("other")

    assert seats.next(10.0) == ["failing"]
