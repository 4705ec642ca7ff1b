"""Messages never fill a broker of bounded memory, and nobody starves beside a full queue."""

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from outbox_relay.core.depths import AT_FIRST, Depths, Soundings
from outbox_relay.core.holds import key_of
from outbox_relay.core.memory import FLOOR, LEAST, SELDOM, STALE, Memory, Used, cost_of
from outbox_relay.core.message import Message, Reason
from tests.relay.messages import a_message, messages

MB = 1 << 20
MAIL = key_of("depth:mail")
COST = cost_of([a_message(routing_key="mail")])


def mail(count: int) -> list[Message]:
    """So many for the queue mail."""
    return messages(count, routing_key="mail")


def tell(depths: Depths, used: int, most: int, now: float = 0.0) -> bool:
    """The broker is asked how full it is, and answers at once."""
    return depths.tell_memory(Used(used, most), depths.asks_for_memory(now) or 0, now)


def answer(depths: Depths, now: float = 0.0, **ready: int) -> None:
    """The same about its queues."""
    depths.tell(Soundings(depths.watched(), ready), now)


def passed(depths: Depths, sent: list[Message], now: float = 0.0) -> int:
    """How many pass."""
    return len(sent) if depths.free(sent, now) else len(depths.sort(sent, now)[0])


def a_full_broker(most: int = 64 * MB) -> Depths:
    """Of whose memory four fifths are used; the queue mail has what it may have."""
    depths = Depths(None, Memory(0.7))
    passed(depths, mail(1))
    assert tell(depths, most * 4 // 5, most)
    passed(depths, mail(1))
    answer(depths, mail=40_000)
    return depths


def test_what_a_broker_bounds_by_nothing_passes_uncounted() -> None:
    """And it is asked again now and then: somebody may set a limit."""
    depths = Depths(None, Memory(0.7))
    assert passed(depths, mail(5_000)) == 5_000
    assert depths.asks_for_memory(0.0) is not None

    assert not tell(depths, 0, 0)
    assert passed(depths, mail(5_000)) == 5_000
    assert depths.watched() == {}
    assert depths.asks_for_memory(SELDOM - 1) is None
    assert depths.asks_for_memory(SELDOM) is not None


def test_no_more_passes_than_there_is_room_for() -> None:
    """Reckoned by what messages take, until the next answer."""
    depths = Depths(None, Memory(0.5))
    passed(depths, mail(1))
    tell(depths, 0, 200 * COST)

    assert passed(depths, mail(60)) == 60
    assert passed(depths, mail(500)) == 40
    allowed, held = depths.sort(mail(1), 0.0)
    assert (allowed, held[0].reason) == ([], Reason.DEEP)
    assert held[0].wait is not None
    assert held[0].wait.key == MAIL


def test_what_may_still_be_on_its_way_is_counted_again() -> None:
    """The broker's answer does not show it."""
    depths = Depths(None, Memory(0.5))
    passed(depths, mail(1))
    tell(depths, 0, 400 * COST)
    tell(depths, 0, 400 * COST)
    passed(depths, mail(100))
    tell(depths, 0, 400 * COST)

    assert passed(depths, mail(500)) == 100


def test_a_full_broker_holds_what_piles_up_and_nothing_else() -> None:
    """A queue whose workers keep up flows; one that is full waits, and says why."""
    depths = a_full_broker()
    both = [*mail(5), *messages(50, routing_key="other")]

    allowed, held = depths.sort(both, 0.0)

    assert {m.routing_key for m in allowed} == {"other"}
    assert len(allowed) == 50
    assert {refusal.detail for refusal in held} == {
        "queue 'mail' is kept short: 51 of 64 MB are used"
    }
    passed(depths, messages(500, routing_key="other"))
    answer(depths, other=0, mail=40_000)
    rest = int(FLOOR * 0.2 / 0.3)
    assert abs(passed(depths, messages(5_000, routing_key="other")) - rest) <= 1


def test_the_less_is_left_the_shorter_queues_are_kept() -> None:
    """But never so short that a queue with workers gets nothing."""
    memory = Memory(0.7)
    lengths = []
    for percent in (70, 80, 90, 99, 100, 120):
        memory.tell(Used(percent * MB, 100 * MB), 0, 0.0)
        lengths.append(memory.ready(0.0))

    assert lengths == sorted(lengths, reverse=True)
    assert (lengths[0], lengths[-1]) == (FLOOR, LEAST)


def test_it_ends_once_a_tenth_of_the_share_is_free() -> None:
    """What waits is then claimed, as much as there is."""
    depths = a_full_broker(100 * MB)
    passed(depths, mail(5))
    assert depths.wishes(0.0) == {}

    assert tell(depths, 64 * MB, 100 * MB)
    assert not tell(depths, 62 * MB, 100 * MB)
    assert depths.wishes(0.0)[MAIL] > FLOOR
    assert passed(depths, mail(400)) == 400


def test_a_large_message_passes_alone_where_it_fits() -> None:
    """However much it is of what is left; one that does not fit keeps no other queue waiting."""
    depths = a_full_broker()
    large = messages(3, routing_key="other", body=b"x" * 5 * MB)
    assert passed(depths, large) == 1
    tell(depths, 52 * MB, 64 * MB)
    tell(depths, 52 * MB, 64 * MB)

    allowed, held = depths.sort([*messages(1, routing_key="b", body=b"x" * 20 * MB), *large], 0.0)

    assert [message.routing_key for message in allowed] == ["other"]
    assert [refusal.message.routing_key for refusal in held] == ["b", "other", "other"]
    assert list(depths.wishes(0.0)) == []


def test_where_nothing_is_used_a_message_of_any_size_passes() -> None:
    """It would wait for ever otherwise."""
    depths = Depths(None, Memory(0.7))
    passed(depths, mail(1))
    tell(depths, MB, 64 * MB)

    assert passed(depths, messages(3, routing_key="mail", body=b"x" * 100 * MB)) == 1


def test_where_no_answer_comes_nothing_is_held() -> None:
    """After a while."""
    depths = a_full_broker()
    assert passed(depths, mail(5), 1.0) == 0
    assert passed(depths, mail(5), STALE + 1.0) == 5
    assert tell(depths, 60 * MB, 64 * MB, STALE + 2.0)


def test_what_cannot_be_known_to_go_to_a_queue_is_not_held() -> None:
    """What is bound to an exchange, the row does not tell."""
    depths = a_full_broker()
    fanout = [a_message(id=n, exchange="events") for n in range(5)]

    assert depths.sort(fanout, 0.0) == (fanout, [])


def test_a_limit_of_depth_holds_beside_it() -> None:
    """The lower of both."""
    depths = Depths(50, Memory(0.7))
    assert not depths.free(mail(1), 0.0)
    assert passed(depths, mail(200)) == 50

    assert tell(depths, 60 * MB, 64 * MB)
    answer(depths, mail=0)
    assert passed(depths, mail(200)) == 50


@settings(deadline=None)
@given(data=st.data())
def test_messages_never_fill_it(data: st.DataObject) -> None:
    """Whatever is sent and taken, of whatever size, while answers come; and what waits arrives."""
    most = 4 * MB
    depths, now = Depths(None, Memory(0.7)), 0.0
    there: dict[str, list[int]] = {"a": [], "b": []}
    passed(depths, mail(1))

    def look() -> None:
        nonlocal now
        now += 0.5
        if depths.asks_for_memory(now) is not None:
            tell(depths, sum(map(sum, there.values())), most, now)
        depths.tell(
            Soundings(depths.watched(), {queue: len(each) for queue, each in there.items()}), now
        )

    def send(queue: str, size: int, count: int) -> int:
        sent = messages(count, routing_key=queue, body=b"x" * size)
        through = passed(depths, sent, now)
        there[queue] += [size + 400] * through
        assert sum(map(sum, there.values())) <= most
        return through

    look()
    steps = st.tuples(st.sampled_from("ab"), st.integers(0, 100_000), st.integers(1, 400))
    for queue, size, count in data.draw(st.lists(steps, max_size=30)):
        send(queue, size, count)
        look()
    # Nobody takes what is in one queue: the other still gets on, as its workers do.
    arrived = 0
    for _ in range(20):
        there["b"].clear()
        look()
        arrived += send("b", 100, 50)
    assert arrived >= AT_FIRST
    assert depths.wishes(inf) is not None
