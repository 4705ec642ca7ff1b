"""Each batch is timed by its own confirms, whatever hangs before it on its channel."""

from outbox_relay.broker.amqp.channel import Channel
from outbox_relay.broker.amqp.inbound import Confirm
from tests.relay.messages import messages


def confirm(channel: Channel, *tags: int) -> None:
    """The broker confirms these."""
    for tag in tags:
        channel.flight.confirmed(Confirm(tag, multiple=False), [], [])


def test_what_is_confirmed_behind_a_batch_that_hangs_has_landed() -> None:
    """After its own time, and once; the others follow when they are confirmed."""
    channel = Channel(1)
    for now in (0.0, 1.0, 2.0):
        channel.take_off(messages(3), now)
    confirm(channel, 1, 3, 4, 5, 6, 8, 9)

    assert channel.landed(2.5) == [(1.5, 3)]
    assert channel.landed(2.6) == []

    confirm(channel, 7)
    assert channel.landed(3.0) == [(1.0, 3)]
    confirm(channel, 2)
    assert channel.landed(30.0) == [(30.0, 3)]
    assert channel.waiting(31.0) == 0.0


def test_what_later_ones_have_passed_is_silent() -> None:
    """However long ago they were confirmed."""
    channel = Channel(1)
    channel.take_off(messages(1), 0.0)
    channel.take_off(messages(2), 0.1)
    confirm(channel, 2, 3)
    channel.landed(0.2)

    assert [message.id for message in channel.silent(5.0, 2.0)] == [1]
    assert channel.hangs(5.0, 1.0)
