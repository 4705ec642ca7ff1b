"""What the relay decides: sent only after a confirm, attempts only for refusals, nothing forgotten.

Everything here is pure; the clock is a number.
"""

import json
from pathlib import Path

import pytest
from hypothesis import settings as bounded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outbox_relay.core.claim import ClaimedRow, Fetched, Reply, Turn
from outbox_relay.core.decide import FINAL, FREE, MAX_IN_FLIGHT_BYTES, Core
from outbox_relay.core.message import Held, Message, Parking, Reason, Refusal
from outbox_relay.core.suspects import MAX_WAITING_BYTES
from outbox_relay.settings import Secret, Settings
from tests.relay.messages import a_message, messages

#: A body of which two fill the room for suspects.
HALF = bytes(MAX_WAITING_BYTES // 2)
NOWHERE = Secret("OUTBOX_DATABASE_URL", path=Path("/nonexistent"))


def settings(
    *, batch_size: int = 10, window: int = 40, max_attempts: int = 3, lease: float = 10
) -> Settings:
    """Settings small enough to fill a window by hand."""
    return Settings(
        NOWHERE,
        NOWHERE,
        batch_size=batch_size,
        window=window,
        max_attempts=max_attempts,
        lease=lease,
    )


def core(**changes: int) -> Core:
    """A core whose first claim is number 100."""
    return Core(settings(**changes), first_claim_id=100)


def a_turn(core: Core, now: float = 0.0, *, claiming: bool = True, blocked: bool = False) -> Turn:
    """The next statement where nothing is in flight by size."""
    return core.turn(now, claiming=claiming, blocked=blocked, in_flight_bytes=0)


def answer(*ids: int) -> Reply:
    """What a turn claimed."""
    return Reply(None, [ClaimedRow(id_, slot=0, attempts=0, suspicion=0) for id_ in ids])


def held(*ids: int) -> list[Held]:
    """What the first claim holds."""
    return [Held(id_, 0, 100) for id_ in ids]


def claim(core: Core, rows: list[Message]) -> list[Message]:
    """Claim these rows; returns what is to be published."""
    core.turned(a_turn(core), answer(*(m.id for m in rows)), 0.0)
    return core.fetched(Fetched(rows, []), 0.0).publish


def park(core: Core, message: Message, reason: Reason) -> Parking:
    """Refuse a message, and carry the decision out."""
    (parking,) = core.parkings([Refusal(message, reason, "detail")])
    core.parked([parking])
    return parking


def test_only_what_was_confirmed_is_settled() -> None:
    """Two of three were confirmed: the next statement marks those two."""
    relay = core()
    first, second, third = claim(relay, messages(3))

    relay.confirmed([third, first], 0.0)

    assert a_turn(relay).done == [third, first]
    assert relay.holding == 1
    assert not relay.at_rest
    assert second not in a_turn(relay).done


def test_a_settlement_that_was_not_committed_is_tried_again() -> None:
    """The database went away between the statement and its answer: the confirm is not forgotten."""
    relay = core()
    relay.confirmed(claim(relay, messages(1)), 0.0)

    lost = a_turn(relay)
    again = a_turn(relay)

    assert lost.done == again.done == messages(1)
    relay.turned(again, answer(), 0.0)
    assert a_turn(relay).done == []
    assert relay.at_rest


def test_every_claim_has_a_number_of_its_own() -> None:
    """Fencing rests on it."""
    relay = core()
    numbers = []
    for _ in range(3):
        turn = a_turn(relay)
        numbers.append(turn.claim_id)
        relay.turned(turn, answer(), 0.0)

    assert numbers == [100, 101, 102]


def test_the_window_bounds_what_is_held() -> None:
    """Held, refused and suspected messages all take room; what is confirmed gives it back."""
    relay = core(batch_size=10, window=12)
    held = claim(relay, messages(10))
    assert a_turn(relay).room == 0  # a claim of two would cost as much as one of ten

    relay.confirmed(held[:5], 0.0)

    assert a_turn(relay).room == 7


@pytest.mark.parametrize("window", [1, 2, 3])
def test_the_smallest_windows_still_let_messages_through(window: int) -> None:
    """A window smaller than a batch is no reason to stand still."""
    relay = core(batch_size=10, window=window)
    for round_ in range(5):
        turn = a_turn(relay)
        assert turn.room == window
        relay.turned(turn, answer(round_), 0.0)
        relay.confirmed([a_message(id=round_)], 0.0)


def test_nothing_is_claimed_while_the_broker_is_blocked() -> None:
    """An alarm stops claims; what was confirmed is settled all the same."""
    relay = core()
    relay.confirmed(claim(relay, messages(1)), 0.0)

    turn = a_turn(relay, blocked=True)

    assert (turn.limit, turn.done) == (0, messages(1))


def test_nothing_is_claimed_while_much_is_in_flight() -> None:
    """Large bodies count by the byte, whatever room the window has."""
    turn = core().turn(0.0, claiming=True, blocked=False, in_flight_bytes=MAX_IN_FLIGHT_BYTES + 1)

    assert turn.limit == 0


def test_nothing_is_claimed_by_a_relay_that_stops() -> None:
    """SIGTERM: no new claims, settlements go on."""
    assert a_turn(core(), claiming=False).limit == 0


@pytest.mark.parametrize(
    "headers",
    [b"{}", b'{"task": "t", "ignore_result": true}', b"[]", b"no json"],
    ids=["event", "nobody waits", "no object", "by hand"],
)
def test_an_expired_message_nobody_waits_for_ends_unpublished(headers: bytes) -> None:
    """Its time had passed: no further attempt, and no error."""
    relay = core()
    relay.turned(a_turn(relay), answer(1), 0.0)

    work = relay.fetched(Fetched([a_message(expired=True, headers=headers)], []), 0.0)

    assert work.publish == []
    assert [r.reason for r in work.refused] == [Reason.EXPIRED]
    assert relay.parkings(work.refused)[0].state == "expired"


@pytest.mark.parametrize(
    "headers",
    [
        b'{"task": "t", "ignore_result": false}',
        b'{"task": "t"}',
        b'{"task": "t", "ignore_result": true, "group": "g"}',
    ],
)
def test_an_expired_task_somebody_waits_for_is_published(headers: bytes) -> None:
    """Without the broker's time limit: a worker is to end it. It never becomes dead."""
    relay = core()
    relay.turned(a_turn(relay), answer(1), 0.0)
    properties = b'{"expiration": "60000", "priority": 3}'
    late = a_message(expired=True, headers=headers, properties=properties)

    (told,) = relay.fetched(Fetched([late], []), 0.0).publish

    assert json.loads(told.properties) == {"priority": 3}
    assert told == late._replace(properties=told.properties)
    gone = Refusal(told._replace(attempts=99), Reason.UNROUTABLE, "312 NO_ROUTE")
    assert relay.parkings([gone])[0].state == "expired"


def test_a_suspect_is_kept_apart() -> None:
    """A poison suspect is not published among other messages, but in quarantine."""
    relay = core()
    guilty = a_message(id=2, suspicion=1)

    publish = claim(relay, [a_message(id=1), guilty])

    assert publish == [a_message(id=1)]
    assert relay.has_suspects
    assert relay.next_suspects(5, 0.0)[0] == [guilty]
    assert relay.next_suspects(5, 0.0)[0] == []
    assert not relay.has_suspects
    assert relay.holding == 2


def test_suspects_beyond_what_memory_may_hold_wait_in_the_table() -> None:
    """It costs them no attempt, and when there is room again they are taken."""
    relay = core()
    rows = [a_message(id=id_, suspicion=1, claim_id=100, body=HALF) for id_ in range(1, 4)]
    relay.turned(a_turn(relay), answer(1, 2, 3), 0.0)

    work = relay.fetched(Fetched(rows, []), 0.0)

    assert work.publish == []
    assert [(r.message.id, r.reason) for r in work.refused] == [(3, Reason.SUSPECTED)]
    assert relay.parkings(work.refused)[0].attempts == 0
    assert len(relay.next_suspects(1, 0.0)[0]) == 1
    assert relay.fetched(Fetched(rows[2:], []), 0.0).refused == []


def test_what_died_among_others_is_suspected_once_more() -> None:
    """Unless it is another claim's by now: that one knows about it."""
    relay = core()
    rows = [a_message(id=id_, suspicion=1, claim_id=100) for id_ in range(1, 4)]
    claim(relay, rows)
    taken = relay.next_suspects(3, 0.0)[0]
    relay.given_back([2])

    relay.suspect_again(taken)

    assert {message.id for message in relay.next_suspects(3, 0.0)[0]} == {1, 3}


def test_what_another_claim_holds_is_not_refused_any_more() -> None:
    """A refusal that comes after its claim ran out, and the row was claimed anew, says nothing."""
    relay = core()
    relay.turned(a_turn(relay), answer(1, 2), 0.0)
    late, timely = (Refusal(a_message(id=id_, claim_id=100), Reason.NACKED, "") for id_ in (1, 2))
    relay.turned(a_turn(relay, now=20.0), answer(1), 0.0)

    assert relay.still_held([late, timely]) == [timely]


@pytest.mark.parametrize("reason", sorted(FREE))
def test_what_is_nobodys_fault_costs_no_attempt(reason: Reason) -> None:
    """A full queue or a missing right never kills a message, however often it is met."""
    relay = core(max_attempts=1)
    message = a_message(attempts=0)
    for _ in range(5):
        parking = park(relay, message, reason)
        assert (parking.state, parking.attempts) == ("retry", 0)
        message = message._replace(attempts=parking.attempts)


@pytest.mark.parametrize("reason", sorted(FINAL))
def test_what_no_attempt_could_change_is_dead_at_once(reason: Reason) -> None:
    """No broker is asked ten times to take what it cannot."""
    parking = park(core(max_attempts=10), a_message(), reason)

    assert parking.state == "dead"
    assert parking.error == f"{reason}: detail"


@pytest.mark.parametrize("reason", sorted(set(Reason) - FREE - FINAL))
def test_refusals_are_counted_up_to_the_limit(reason: Reason) -> None:
    """The last permitted attempt makes it dead, not the one before and not one more."""
    message, states = a_message(), []
    for _ in range(3):
        parking = park(core(max_attempts=3), message, reason)
        states.append(parking.state)
        message = message._replace(attempts=parking.attempts)

    assert states == ["retry", "retry", "dead"]


@pytest.mark.parametrize(
    "reason", [Reason.REJECTED, Reason.FORBIDDEN, Reason.SUSPECTED, Reason.UNDECLARED]
)
def test_what_killed_a_channel_stays_under_suspicion(reason: Reason) -> None:
    """On its next attempt it would kill the channel of its neighbours again."""
    parking = park(core(), a_message(suspicion=1), reason)

    assert parking.suspicion == 1


@pytest.mark.parametrize("reason", [Reason.NACKED, Reason.UNROUTABLE])
def test_a_suspect_the_broker_answered_is_cleared(reason: Reason) -> None:
    """Its channel lived: it may travel with others again."""
    parking = park(core(), a_message(suspicion=1), reason)

    assert parking.suspicion == 0


def test_bodies_that_had_no_room_are_given_back_and_fewer_claimed() -> None:
    """Two of ten could be fetched: the next claim asks for two, and finds the others at once."""
    relay = core()
    relay.turned(a_turn(relay), answer(*range(1, 11)), 0.0)
    withheld = held(*range(3, 11))

    work = relay.fetched(Fetched(messages(2), withheld), 0.0)
    relay.given_back([each.id for each in work.later])
    relay.confirmed(work.publish, 0.0)
    turn = a_turn(relay, now=0.1)

    assert work.later == withheld
    assert (turn.room, turn.floor) == (2, 0)
    relay.turned(turn, answer(3, 4), 0.0)
    relay.fetched(Fetched(messages(2), []), 0.0)
    relay.confirmed(messages(2), 0.0)
    assert a_turn(relay, now=0.1).room == 4  # and grows again once they fit


def test_an_outage_gives_everything_back_as_it_was() -> None:
    """No attempt, no suspicion: the broker went away by itself."""
    relay = core()
    claim(relay, [*messages(2), a_message(id=3, suspicion=1)])

    cleared, suspects = relay.held()

    assert sorted(cleared) == held(1, 2, 3)
    assert suspects == []
    relay.given_back([1, 2, 3])
    assert relay.at_rest
    assert not relay.has_suspects


def test_what_was_confirmed_before_an_outage_is_not_given_back() -> None:
    """A confirm is final: that message is settled, not sent again."""
    relay = core()
    first, _ = claim(relay, messages(2))
    relay.confirmed([first], 0.0)

    cleared, _ = relay.held()

    assert cleared == held(2)
    assert a_turn(relay).done == [first]


def test_only_what_was_in_flight_comes_under_suspicion() -> None:
    """The broker closed over a message: what had not been published cannot be the cause."""
    relay = core()
    claim(relay, messages(3))

    cleared, suspects = relay.held(suspects=frozenset({2}))

    assert cleared == held(1, 3)
    assert suspects == held(2)


def test_claims_are_renewed_before_they_end() -> None:
    """What is held after a third of its lease is renewed; a claim just made needs nothing yet."""
    relay = core(lease=10)
    relay.renewal(100.0)
    claim(relay, messages(2))

    assert relay.renewal(101.0) == []
    assert relay.renewal(103.4) == []
    assert relay.renewal(106.8) == held(1, 2)
    assert relay.renewal(107.0) == []
    assert relay.renewal(110.2) == held(1, 2)


def test_the_numbers_of_claims_begin_anew() -> None:
    """After the last one, within the relay's own half; what is held across that is renewed."""
    last = (1 << 63) - 1  # the highest that the column takes
    relay = Core(settings(lease=10), first_claim_id=last)
    relay.renewal(100.0)
    claim(relay, messages(1))

    assert relay.next_claim_id == last - (1 << 32) + 1
    claim(relay, [a_message(id=2)])
    assert [h.id for h in relay.renewal(104.0)] == []
    assert [h.id for h in relay.renewal(108.0)] == [1, 2]


def test_after_a_pause_all_claims_are_renewed() -> None:
    """Those made just before it as well: they are ours while nobody else has taken them."""
    relay = core(lease=10)
    relay.renewal(100.0)
    claim(relay, messages(2))

    assert relay.renewal(112.0) == held(1, 2)


def test_every_claim_is_renewed_within_its_lease() -> None:
    """Whenever a claim is made, two thirds of its lease do not pass without a renewal."""
    for offset in (0.0, 0.1, 1.7, 3.2):
        relay = core(lease=10)
        looks = [100 + 0.1 * n for n in range(200)]
        made = None
        for now in looks:
            if made is None and now >= 105 + offset:
                claim(relay, messages(1))
                made = now
            if relay.renewal(now):
                assert made is not None
                assert now - made < 2 / 3 * 10 + 0.2
                break
        else:
            raise AssertionError("never renewed")


def test_a_claim_that_grew_old_is_not_published() -> None:
    """After a pause of the process, another relay may hold the rows by now."""
    relay = core()

    assert relay.still_ours(claimed_at=0.0, now=4.9)
    assert not relay.still_ours(claimed_at=0.0, now=5.1)


class Accounts(RuleBasedStateMachine):
    """A core, and a ledger of what became of every row it was ever given."""

    def __init__(self) -> None:
        super().__init__()
        self.core = core(batch_size=4, window=10)
        self.now = 0.0
        self.next_id = 1
        self.in_flight: dict[int, Message] = {}
        self.confirmed: set[int] = set()
        self.settled: set[int] = set()
        self.parked: set[int] = set()
        self.given_back: set[int] = set()

    @rule(suspicious=st.booleans(), withheld=st.booleans(), committed=st.booleans())
    def turn(self, suspicious: bool, withheld: bool, committed: bool) -> None:
        """A statement, which may fail to commit, and what it leads to."""
        self.now += 0.3
        turn = a_turn(self.core, self.now)
        assert {m.id for m in turn.done} <= self.confirmed
        assert self.core.holding - self.suspected + turn.room <= 10 or not turn.room
        if not committed:
            return
        ids = list(range(self.next_id, self.next_id + turn.room))
        self.next_id += turn.room
        self.core.turned(turn, answer(*ids), 0.0)
        self.settled |= {m.id for m in turn.done}
        kept = ids[:1] if withheld else ids
        rows = [
            a_message(id=id_, claim_id=turn.claim_id, suspicion=int(suspicious)) for id_ in kept
        ]
        withheld_ones = [Held(id_, 0, turn.claim_id) for id_ in ids[len(kept) :]]
        work = self.core.fetched(Fetched(rows, withheld_ones), 0.0)
        self.core.parked(self.core.parkings(work.refused))
        self.parked |= {r.message.id for r in work.refused}
        self.core.given_back([each.id for each in work.later])
        self.given_back |= {each.id for each in work.later}
        self.in_flight |= {m.id: m for m in work.publish}

    @property
    def suspected(self) -> int:
        """Rows held that are not in flight: under suspicion, waiting for their turn alone."""
        return self.core.holding - len(self.in_flight)

    @rule(count=st.integers(0, 3))
    def publish_suspects(self, count: int) -> None:
        """The quarantine takes the next ones."""
        for suspect in self.core.next_suspects(count, 0.0)[0]:
            assert suspect.id not in self.in_flight
            self.in_flight[suspect.id] = suspect

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        """The broker takes one."""
        id_ = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.core.confirmed([self.in_flight.pop(id_)], 0.0)
        self.confirmed.add(id_)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), reason=st.sampled_from(list(Reason)))
    def refuse(self, data: st.DataObject, reason: Reason) -> None:
        """The broker refuses one."""
        id_ = data.draw(st.sampled_from(sorted(self.in_flight)))
        park(self.core, self.in_flight.pop(id_), reason)
        self.parked.add(id_)

    @rule()
    def lose_the_broker(self) -> None:
        """Everything unsettled is given back."""
        cleared, suspects = self.core.held(set(self.in_flight))
        ids = {each.id for each in cleared + suspects}
        assert ids.isdisjoint(self.confirmed)
        self.core.given_back(ids)
        self.given_back |= ids
        self.in_flight.clear()
        assert self.core.holding == 0

    @invariant()
    def accounts_balance(self) -> None:
        """Every row is in exactly one place: held, confirmed, parked or given back."""
        ever = self.next_id - 1
        fates = len(self.confirmed) + len(self.parked) + len(self.given_back)
        assert self.core.holding == ever - fates
        assert self.settled <= self.confirmed


TestAccounts = Accounts.TestCase
TestAccounts.settings = bounded(max_examples=50, deadline=None)
