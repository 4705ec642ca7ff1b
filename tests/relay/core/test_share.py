"""What there is not enough of is shared: nobody has more than another that wants more."""

from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.core.share import share

WISHES = st.dictionaries(st.integers(0, 20), st.integers(0, 1_000), max_size=12)
ROOM = st.integers(-1, 2_000)


@given(WISHES, ROOM)
def test_all_of_the_room_is_given_and_no_more_than_is_wanted(
    wishes: dict[int, int], room: int
) -> None:
    """Whatever is wanted."""
    shares = share(wishes, room)

    assert sum(shares.values()) == min(max(0, room), sum(wishes.values()))
    assert all(0 < given <= wishes[key] for key, given in shares.items())


@given(WISHES, ROOM)
def test_who_wants_more_has_no_less(wishes: dict[int, int], room: int) -> None:
    """But for one, which cannot be divided, and for what comes later than the room goes."""
    shares = share(wishes, room)

    for key, has in shares.items():
        assert has == wishes[key] or max(shares.values()) <= has + 1
    open_wishes = [key for key, wish in wishes.items() if wish]
    assert list(shares) == open_wishes[: max(0, room)]


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=12), st.integers(1, 20))
def test_all_have_their_turn(wanted: list[int], room: int) -> None:
    """However small the room, where those that were served stand behind the others."""
    wishes = dict(enumerate(wanted))
    served: set[int] = set()
    for _ in range(-(-len(wanted) // room)):
        shares = share(wishes, room)
        served |= shares.keys()
        wishes = {key: wishes[key] for key in sorted(wishes, key=shares.__contains__)}

    assert served == set(range(len(wanted)))


def test_a_small_wish_is_served_beside_large_ones() -> None:
    """What it leaves is for them."""
    assert share({"a": 100_000, "b": 1, "c": 100_000}, 250) == {"a": 124, "b": 1, "c": 125}
