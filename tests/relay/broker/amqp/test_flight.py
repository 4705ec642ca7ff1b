"""A confirm settles its own tag and no other, in whatever order, number or company it comes."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outbox_relay.broker.amqp.flight import Flight
from outbox_relay.broker.amqp.inbound import Confirm, Returned
from outbox_relay.core.message import Message, Reason, Refusal
from tests.relay.messages import a_message, messages


@dataclass
class Landing:
    """What has come of the messages of a flight."""

    flight: Flight
    confirmed: list[Message] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def hear(self, tag: int, *, multiple: bool = False, ack: bool = True) -> None:
        """One confirm arrives."""
        self.flight.confirmed(Confirm(tag, multiple, ack), self.confirmed, self.refused)

    @property
    def ids(self) -> list[int]:
        """Ids confirmed so far."""
        return [message.id for message in self.confirmed]

    @property
    def reasons(self) -> dict[int, Reason]:
        """Ids refused so far, and why."""
        return {refusal.message.id: refusal.reason for refusal in self.refused}


def flying(count: int) -> Landing:
    """A landing strip with that many messages in the air, tagged like their ids."""
    flight = Flight()
    flight.take_off(messages(count))
    return Landing(flight)


def came_back(message: Message, name: str | None = None) -> Returned:
    """The broker's return of a message, naming it by that correlation id."""
    return Returned(312, "NO_ROUTE", message.exchange, message.routing_key, name, None)


def test_tags_count_from_one_across_batches() -> None:
    """The broker numbers what a channel publishes; batches make no difference."""
    flight = Flight()
    flight.take_off(messages(3))
    flight.take_off([a_message(id=99)])
    landing = Landing(flight)

    landing.hear(4)

    assert landing.ids == [99]
    assert flight.last_tag == 4


def test_a_late_confirm_never_settles_another_message() -> None:
    """The confirm of a tag that has landed already is nobody's."""
    landing = flying(2)
    landing.hear(1)

    landing.hear(1)
    landing.hear(1, ack=False)

    assert landing.ids == [1]
    assert landing.flight.unconfirmed() == [messages(2)[1]]


def test_a_confirm_from_the_future_settles_nothing() -> None:
    """A tag never given out is not taken for one that was."""
    landing = flying(2)

    landing.hear(17)

    assert landing.ids == []
    assert len(landing.flight) == 2


def test_multiple_settles_everything_up_to_its_tag() -> None:
    """All the lower ones, not the higher ones, and none twice."""
    landing = flying(5)
    landing.hear(2)

    landing.hear(4, multiple=True)

    assert landing.ids == [2, 1, 3, 4]
    assert [m.id for m in landing.flight.unconfirmed()] == [5]


def test_tag_nought_with_multiple_settles_everything() -> None:
    """AMQP's shorthand for all that is outstanding."""
    landing = flying(3)

    landing.hear(0, multiple=True)

    assert landing.ids == [1, 2, 3]


def test_tag_nought_without_multiple_settles_nothing() -> None:
    """Nought is no message's tag."""
    landing = flying(3)

    landing.hear(0)

    assert landing.ids == []


def test_multiple_beyond_the_last_tag_leaves_later_messages_alone() -> None:
    """What takes off after such a confirm still waits for its own."""
    landing = flying(2)
    landing.hear(1000, multiple=True)
    landing.flight.take_off([a_message(id=3)])

    assert landing.ids == [1, 2]
    assert [m.id for m in landing.flight.unconfirmed()] == [3]
    landing.hear(3)
    assert landing.ids == [1, 2, 3]


def test_a_nack_of_many_refuses_each_of_them() -> None:
    """A full queue refuses whole ranges; each message is told of it, and none as confirmed."""
    landing = flying(3)

    landing.hear(2, multiple=True, ack=False)

    assert landing.reasons == {1: Reason.NACKED, 2: Reason.NACKED}
    assert landing.ids == []


def test_a_returned_message_is_refused_though_it_was_acknowledged() -> None:
    """The acknowledgement of a returned message means that it reached no queue."""
    flight = Flight()
    flight.take_off([a_message(id=1, message_id="a"), a_message(id=2, message_id="b")])
    landing = Landing(flight)

    assert flight.returned(came_back(a_message(), "b")) == 1
    landing.hear(2, multiple=True)

    assert landing.ids == [1]
    assert landing.reasons == {2: Reason.UNROUTABLE}
    assert "312 NO_ROUTE" in landing.refused[0].detail


def test_a_return_that_names_nobody_holds_back_all_on_its_route() -> None:
    """In doubt, a duplicate is permitted and a loss is not."""
    flight = Flight()
    flight.take_off([*messages(2), a_message(id=3, routing_key="elsewhere")])
    landing = Landing(flight)

    assert flight.returned(came_back(a_message())) == 2
    landing.hear(3, multiple=True)

    assert landing.ids == [3]
    assert set(landing.reasons) == {1, 2}


def test_a_return_by_another_exchange_is_not_ours() -> None:
    """Route and exchange both have to fit."""
    landing = flying(1)

    assert landing.flight.returned(came_back(a_message(exchange="other"))) == 0


def test_equal_ids_in_flight_are_all_held_back() -> None:
    """Two rows with one message id cannot be told apart by a return."""
    flight = Flight()
    flight.take_off([a_message(id=1, message_id="same"), a_message(id=2, message_id="same")])
    landing = Landing(flight)

    flight.returned(came_back(a_message(), "same"))
    landing.hear(0, multiple=True)

    assert set(landing.reasons) == {1, 2}


def test_a_correlation_id_written_with_escapes_is_recognised() -> None:
    """JSON may spell a letter as an escape; the broker names the letter.

    Another message that answers to the name by its id must not be the only one refused.
    """
    flight = Flight()
    escaped = a_message(id=1, message_id="x", properties='{"correlation_id": "\\u00e9"}')
    literal = a_message(id=2, message_id="é", properties='{"correlation_id": "é"}')
    flight.take_off([escaped, literal])
    landing = Landing(flight)

    flight.returned(came_back(escaped, "é"))
    landing.hear(2, multiple=True)

    assert 1 not in landing.ids


@given(st.integers(1, 40), st.data())
def test_confirms_in_any_order_settle_each_message_once(count: int, data: st.DataObject) -> None:
    """Out of order, one by one: every message lands exactly once, by its own confirm."""
    landing = flying(count)

    for tag in data.draw(st.permutations(range(1, count + 1))):
        landing.hear(tag)
        assert landing.ids[-1] == tag

    assert sorted(landing.ids) == list(range(1, count + 1))
    assert landing.flight.bytes == 0


class AgainstATable(RuleBasedStateMachine):
    """The flight beside a plain table of what each tag stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.landing = Landing(Flight())
        self.open: dict[int, Message] = {}
        self.expected: dict[int, str] = {}
        self.returned: set[int] = set()
        self.tag = 0

    @rule(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=5))
    def publish(self, sizes: list[int]) -> None:
        """A batch takes off."""
        batch = []
        for size in sizes:
            self.tag += 1
            message = a_message(id=self.tag, message_id=f"<{self.tag}>", body=b"x" * size)
            self.open[self.tag] = message
            batch.append(message)
        self.landing.flight.take_off(batch)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """One message is returned."""
        tag = data.draw(st.sampled_from(sorted(self.open)))
        self.returned.add(tag)
        assert self.landing.flight.returned(came_back(a_message(), f"<{tag}>")) == 1

    @rule(tag=st.integers(0, 30), multiple=st.booleans(), ack=st.booleans())
    def confirm(self, tag: int, multiple: bool, ack: bool) -> None:
        """A confirm arrives, sensible or not."""
        if multiple:
            settled = [t for t in self.open if t <= tag or tag == 0]
        else:
            settled = [t for t in self.open if t == tag]
        for each in settled:
            del self.open[each]
            verdict = "confirmed" if ack else Reason.NACKED
            self.expected[each] = Reason.UNROUTABLE if each in self.returned else verdict
        self.landing.hear(tag, multiple=multiple, ack=ack)

    @invariant()
    def agrees(self) -> None:
        """Both say the same of every message."""
        landed: dict[int, str] = dict.fromkeys(self.landing.ids, "confirmed")
        assert {**landed, **self.landing.reasons} == self.expected
        assert len(self.landing.ids) + len(self.landing.refused) == len(self.expected)
        assert self.landing.flight.unconfirmed() == list(self.open.values())
        assert self.landing.flight.bytes == sum(m.size for m in self.open.values())
        assert self.landing.flight.lowest_tag == min(self.open, default=self.tag + 1)


TestAgainstATable = AgainstATable.TestCase
TestAgainstATable.settings = settings(max_examples=50, deadline=None)
