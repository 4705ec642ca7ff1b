"""What waits for different things shares each claim; what two things hold waits for both, once."""

from outbox_relay.core.claim import ClaimedRow, RouteClaim
from outbox_relay.core.depths import Depths, Soundings
from outbox_relay.core.holds import Hold, key_of
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.core.pauses import Pauses, written
from outbox_relay.core.rates import Grant
from outbox_relay.core.waiting import Waiting
from tests.relay.messages import a_message, messages

FAST = Hold("task", "fast", per_second=100_000.0)
SLOW = Hold("task", "slow", per_second=5.0)
ROOM = 400


def limits(waiting: Waiting, now: float = 0.0, room: int = ROOM) -> dict[str, int]:
    """What the next claim takes, of which target."""
    claim = waiting.claim(now, room)
    return dict(zip(claim.routes, claim.limits, strict=True)) if claim else {}


def test_each_has_its_share_of_a_claim() -> None:
    """A slow limit beside a fast one, a queue beside both, and what is let go."""
    waiting = Waiting(Pauses(1.0), None, Depths(100_000))
    waiting.hold([FAST, SLOW])
    keys = {name: key_of(name) for name in ("rate:task:fast", "rate:task:slow", "depth:mail")}
    waiting.found([*keys.values(), key_of("queue:letters")])
    waiting.granted([Grant("task:fast", 20_000, 0.0), Grant("task:slow", 1, 0.0)], 0.0)

    taken = limits(waiting)

    assert sum(taken.values()) == ROOM // 2
    assert taken[keys["rate:task:slow"]] == 1
    assert min(count for key, count in taken.items() if key != keys["rate:task:slow"]) >= 66


def test_a_route_that_refused_leaves_room_to_the_others() -> None:
    """Its portions are half of a claim at most, and the rest is shared as ever."""
    pauses = Pauses(1.0)
    waiting = Waiting(pauses, None, None)
    waiting.hold([FAST])
    waiting.granted([Grant("task:fast", 20_000, 0.0)], 0.0)
    sent = [a_message(id=number, routing_key="full") for number in range(5_000)]
    pauses.refused([Refusal(sent[0], Reason.NACKED, "full")], 0.0)
    route = written(("", "full"))
    waiting.found([route, key_of("rate:task:fast")])
    now = 100.0
    while (portion := limits(waiting, now, 100_000)[route]) < ROOM:
        rows = [ClaimedRow(message.id, 0, 0, 0) for message in sent[:portion]]
        waiting.claimed(RouteClaim((route,), (portion,)), [(row, route) for row in rows], now)
        pauses.confirmed(sent[:portion], now)

    assert limits(waiting, now) == {route: ROOM // 2, key_of("rate:task:fast"): ROOM // 4}


def test_all_have_their_turn_where_there_is_room_for_one() -> None:
    """What waits, in turns; and what does not, every other time."""
    waiting = Waiting(Pauses(1.0), None, None)
    keys = [key_of(f"queue:{name}") for name in "abc"]
    waiting.found(keys)

    turns = [limits(waiting, room=1) for _ in range(6)]

    assert turns[::2] == [{}, {}, {}]
    assert sorted(key for turn in turns for key in turn) == keys


def limited() -> tuple[Waiting, Depths, str, str]:
    """Messages of a queue that takes ten, and of a task that may have five a second."""
    depths = Depths(10)
    waiting = Waiting(Pauses(1.0), None, depths)
    waiting.hold([SLOW])
    return waiting, depths, key_of("depth:mail"), key_of("rate:task:slow")


def mail(first: int, count: int) -> list[Message]:
    """So many."""
    return [
        message._replace(id=first + message.id, task="slow")
        for message in messages(count, routing_key="mail")
    ]


def reasons(held: list[Refusal]) -> set[Reason]:
    """Why they wait."""
    return {refusal.reason for refusal in held}


def test_what_has_no_token_takes_no_room() -> None:
    """It waits for a token, and others pass meanwhile."""
    waiting, _, _, _ = limited()

    allowed, held = waiting.sort(mail(0, 50), 0.0)
    assert (allowed, reasons(held)) == ([], {Reason.RATED})

    others = messages(20, routing_key="mail")
    allowed, held = waiting.sort(others, 0.0)
    assert (len(allowed), reasons(held)) == (10, {Reason.DEEP})


def test_what_has_no_room_takes_no_token() -> None:
    """Those it was claimed with go to the next that wait for one."""
    waiting, depths, deep, rated = limited()
    waiting.sort(messages(10, routing_key="mail"), 0.0)
    depths.tell(Soundings(depths.watched(), {"mail": 10}), 0.0)
    waiting.found([rated])
    waiting.granted([Grant("task:slow", 3, 0.0)], 0.0)
    claim = waiting.claim(0.0, ROOM)
    assert claim is not None
    assert (claim.routes, claim.limits) == ((rated,), (3,))
    full = mail(0, 3)
    waiting.claimed(claim, [(ClaimedRow(m.id, 0, 0, 0), rated) for m in full], 0.0)

    allowed, held = waiting.sort(full, 0.0)

    assert (allowed, reasons(held)) == ([], {Reason.DEEP})
    assert {refusal.wait.key for refusal in held if refusal.wait} == {deep}
    assert limits(waiting) == {rated: 3}


def test_what_is_paused_takes_no_token_either() -> None:
    """Nor what anything else holds."""
    waiting, _, _, rated = limited()
    waiting.found([rated])
    waiting.granted([Grant("task:slow", 3, 0.0)], 0.0)
    claim = waiting.claim(0.0, ROOM)
    assert claim is not None
    waiting.claimed(claim, [(ClaimedRow(m.id, 0, 0, 0), rated) for m in mail(0, 3)], 0.0)
    waiting.hold([SLOW, Hold("queue", "mail")])

    _, held = waiting.sort(mail(0, 3), 0.0)

    assert reasons(held) == {Reason.PAUSED}
    assert limits(waiting) == {rated: 3}


def test_both_limits_together_let_through_what_both_allow() -> None:
    """Tokens come and workers take: all arrives, and neither limit is passed."""
    waiting, depths, deep, rated = limited()
    database: dict[str, list[Message]] = {deep: [], rated: []}
    arrived, there, given, now = 0, 0, 0, 0.0
    incoming = mail(0, 60)
    while arrived < 60:
        now += 0.2
        depths.tell(Soundings(depths.watched(), {"mail": there}), now)
        there = max(0, there - 2)  # workers take two
        waiting.granted([Grant("task:slow", 1, 0.0)], 0.0)
        given += 1
        claim, claimed = waiting.claim(now, ROOM), [*incoming]
        if claim:
            found = [
                (key, message)
                for key, most in zip(claim.routes, claim.limits, strict=True)
                for message in database[key][:most]
            ]
            for key, message in found:
                database[key].remove(message)
            rows = [(ClaimedRow(message.id, 0, 0, 0), key) for key, message in found]
            waiting.claimed(claim, rows, now)
            claimed += [message for _, message in found]
        incoming = []
        allowed, held = waiting.sort(claimed, now)
        for refusal in held:
            assert refusal.wait is not None
            database[refusal.wait.key].append(refusal.message)
        arrived, there = arrived + len(allowed), there + len(allowed)
        assert arrived <= given
        assert there <= 10
        assert now < 60, "starved"


def test_every_fourth_claim_of_a_key_takes_the_oldest() -> None:
    """Of each key, however they take turns: what is not urgent comes to its turn as well."""
    waiting = Waiting(Pauses(1.0), None, None)
    keys = [key_of(f"queue:{name}") for name in "abcd"]
    waiting.found(keys)
    claims: dict[str, list[bool]] = {key: [] for key in keys}

    for _ in range(4 * 8 * 2):
        if claim := waiting.claim(0.0, 1):
            for key in claim.routes:
                claims[key].append(key in claim.by_age)

    assert claims == {key: [False, False, False, True] * 2 for key in keys}
