"""Which spans follow from how a batch ended."""

from typing import Any

from outbox_relay.observe.tracing.parent import Parent
from outbox_relay.observe.tracing.spans import plan
from outbox_relay.observe.tracing.trail import Batch, Ending, Held, Traced

PARENT = Parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
BATCH = Batch(number=1, messages=3, published=3.0)


def a_message(**differing: Any) -> Traced:
    """A traced message: committed at 1, claimed at 2, published at 3."""
    ordinary = Traced(
        id=1,
        slot=3,
        parent=PARENT,
        message_id="m1",
        task="shop.bill",
        exchange="",
        routing_key="mail",
        size=10,
        attempts=0,
        suspect=False,
        waiting=1.0,
        held=(),
        born=1.0,
        claimed=2.0,
        batch=BATCH,
    )
    return ordinary._replace(**differing)


def test_a_message_that_is_confirmed() -> None:
    """Waited from its commit to its claim, and was published until the confirm."""
    found = plan([Ending(a_message(), 4.0)], {}, "rabbitmq")
    (wait,), (attempt,) = found.waits, found.attempts
    assert (wait.begin, wait.end, wait.parent, wait.calling) == (1.0, 2.0, PARENT, False)
    assert (attempt.begin, attempt.end, attempt.parent, attempt.calling) == (3.0, 4.0, PARENT, True)
    assert (attempt.error, attempt.events) == ("", ())
    assert attempt.attributes["messaging.operation.type"] == "send"


def test_a_batch_lasts_until_the_last_of_it() -> None:
    """Its destination is said where all of it is known to go there."""
    endings = [Ending(a_message(id=n), 3.0 + n) for n in (1, 2, 3)]
    whole = plan(endings, {}, "rabbitmq").whole
    assert whole is not None
    assert (whole.parent, whole.begin, whole.end) == (None, 3.0, 6.0)
    assert whole.attributes["messaging.batch.message_count"] == 3
    assert whole.attributes["messaging.destination.name"] == "mail"
    some = plan(endings[:2], {}, "rabbitmq").whole
    assert some is not None
    assert "messaging.destination.name" not in some.attributes


def test_one_message_is_no_batch() -> None:
    """As the conventions have it."""
    alone = a_message(batch=BATCH._replace(messages=1))
    assert plan([Ending(alone, 4.0)], {}, "rabbitmq").whole is None


def test_destinations_are_named_as_the_broker_does() -> None:
    """Exchange and key, one of them, or the default exchange; span names leave the key out."""
    for exchange, key, destination, name in (
        ("events", "order.paid.42", "events:order.paid.42", "publish events"),
        ("events", "", "events", "publish events"),
        ("", "mail", "mail", "publish mail"),
        ("", "", "amq.default", "publish amq.default"),
    ):
        traced = a_message(exchange=exchange, routing_key=key)
        (attempt,) = plan([Ending(traced, 4.0)], {}, "rabbitmq").attempts
        assert attempt.attributes["messaging.destination.name"] == destination
        assert attempt.attributes.get("messaging.rabbitmq.destination.routing_key", "") == key
        assert attempt.name == name


def test_a_refusal_is_an_error_and_an_event() -> None:
    """With its reason and where the message went."""
    ending = Ending(a_message(attempts=9, waiting=1.5), 4.0, "unroutable", "dead")
    (attempt,) = plan([ending], {}, "rabbitmq").attempts
    assert attempt.error == attempt.attributes["error.type"] == "unroutable"
    assert attempt.attributes["outbox.attempt"] == 10
    (event,) = attempt.events
    assert (event.name, event.at) == ("outbox.refused", 4.0)
    assert event.attributes == {"outbox.reason": "unroutable", "outbox.state": "dead"}


def test_a_lost_connection_refuses_nothing() -> None:
    """The broker may have it: that is another event."""
    (attempt,) = plan([Ending(a_message(), 4.0, "connection_lost")], {}, "rabbitmq").attempts
    assert [event.name for event in attempt.events] == ["outbox.unknown"]


def test_a_replay_has_an_event_and_no_wait() -> None:
    """It did not wait since its commit: it was sent meanwhile."""
    found = plan([Ending(a_message(claimed=100.0), 101.0)], {1: 5.0}, "rabbitmq")
    assert found.waits == ()
    (event,) = found.attempts[0].events
    assert (event.name, event.attributes) == ("outbox.replayed", {"outbox.sent_seconds_ago": 95})


def test_the_wait_after_another_relays_refusal_is_not_known() -> None:
    """It is left out, and not begun at the commit."""
    found = plan([Ending(a_message(attempts=2), 4.0)], {}, "rabbitmq")
    assert found.waits == ()
    known = plan([Ending(a_message(attempts=2, waiting=1.8), 4.0)], {}, "rabbitmq")
    assert [wait.begin for wait in known.waits] == [1.8]


def test_what_held_a_message_is_told_by_its_wait() -> None:
    """With when and why."""
    traced = a_message(held=(Held(1.2, "paused"), Held(1.6, "deep")))
    (wait,) = plan([Ending(traced, 4.0)], {}, "rabbitmq").waits
    assert [(event.at, event.attributes["outbox.reason"]) for event in wait.events] == [
        (1.2, "paused"),
        (1.6, "deep"),
    ]


def test_a_suspect_says_that_it_was_in_quarantine() -> None:
    """Its attempt begins with its claim: it waited for its turn there."""
    traced = a_message(batch=None, suspect=True)
    (attempt,) = plan([Ending(traced, 4.0)], {}, "rabbitmq").attempts
    assert attempt.begin == 2.0
    assert attempt.attributes["outbox.quarantine"] is True


def test_clocks_that_were_set_back_make_no_wait_of_less_than_nothing() -> None:
    """The commit may seem to be after the claim."""
    (wait,) = plan([Ending(a_message(waiting=2.5, born=2.5), 4.0)], {}, "rabbitmq").waits
    assert (wait.begin, wait.end) == (2.0, 2.0)
