"""What is held, by which name, and how it is let go: half of each claim, until none is left."""

import pytest

from outbox_relay.configuration import from_environment
from outbox_relay.core.claim import ClaimedRow, Fetched, Reply
from outbox_relay.core.decide import Core
from outbox_relay.core.holds import LOOK_AGAIN, Hold, Holds, fits, key_of
from outbox_relay.core.message import Message, Reason
from outbox_relay.core.share import ALL
from outbox_relay.settings import Settings
from tests.relay.messages import a_message

DECLARED = '[{"kind": "queue", "name": "mail", "exchange": {"name": "events"}}]'
MAIL = a_message(routing_key="mail", task="shop.mail")


def settings() -> Settings:
    """Ordinary ones."""
    urls = {"OUTBOX_DATABASE_URL": "dbname=x", "OUTBOX_BROKER_URL": "amqp://x"}
    return from_environment(urls, need_broker=True)


def held(hold: Hold, message: Message) -> bool:
    """Whether it waits."""
    holds = Holds()
    holds.replace([hold])
    allowed, refused = holds.sort([message])
    assert len(allowed) + len(refused) == 1
    return bool(refused)


@pytest.mark.parametrize(
    ("hold", "message"),
    [
        (Hold("queue", "mail"), MAIL),
        (Hold("queue", "ma*"), MAIL),
        (Hold("queue", "mail"), a_message(exchange="events", declare=DECLARED)),
        (Hold("exchange", "events"), a_message(exchange="events")),
        (Hold("exchange", "ev?nts"), a_message(exchange="events")),
        (Hold("task", "shop.*"), MAIL),
        (Hold("task", "order.created"), a_message(task="order.created", headers=b"{}")),
        (Hold("task", "a.*"), a_message(task="a.line\nbreak")),
        (Hold("all", "*"), a_message()),
    ],
    ids=lambda each: each.target if isinstance(each, Hold) else "",
)
def test_what_is_held(hold: Hold, message: Message) -> None:
    """By its queue, declared or not, its exchange, its task, or as everything is."""
    assert held(hold, message)


@pytest.mark.parametrize(
    ("hold", "message"),
    [
        (Hold("queue", "mail"), a_message(routing_key="mails")),
        (Hold("queue", "mail"), a_message(exchange="other", routing_key="mail")),
        (Hold("exchange", "mail"), MAIL),
        (Hold("task", "shop"), MAIL),
        (Hold("task", "shop.[m]ail"), MAIL),
        (Hold("queue", "m.il"), MAIL),
    ],
    ids=lambda each: each.target if isinstance(each, Hold) else "",
)
def test_what_is_not_held(hold: Hold, message: Message) -> None:
    """Nothing whose name only resembles it: there are two wildcards and no others."""
    assert not held(hold, message)


def test_patterns_are_no_regular_expressions() -> None:
    """Whatever characters a name has, it fits itself."""
    for name in ("a+b", "a(b", "[x]", "a.b", "a\\b", "$", ""):
        assert fits(name, name)
    assert not fits("a.b", "axb")


def test_a_held_message_waits_for_its_hold_at_no_attempt() -> None:
    """With the reason in its row, under the key of the hold, until that ends or for a day."""
    core = Core(settings(), 1)
    core.waiting.hold([Hold("queue", "mail", None, "ana", "the provider is down")])

    work = core.fetched(Fetched([MAIL, a_message(id=2)], []), 0.0)
    [parking] = core.parkings(work.refused)

    assert [message.id for message in work.publish] == [2]
    assert parking.error == "paused: queue:mail is paused by ana: the provider is down"
    assert (parking.state, parking.attempts, parking.route) == ("retry", 0, key_of("queue:mail"))
    assert LOOK_AGAIN <= parking.delay <= 2 * LOOK_AGAIN


def test_a_hold_with_an_end_is_waited_for_no_longer() -> None:
    """Whether or not anybody lets its messages go."""
    core = Core(settings(), 1)
    core.waiting.hold([Hold("all", "*", 12.5)])

    [parking] = core.parkings(core.fetched(Fetched([MAIL], []), 0.0).refused)

    assert parking.delay == 12.5


def test_what_is_let_go_takes_half_of_a_claim_until_none_is_left() -> None:
    """Others have the other half; a relay with something to let go does not sleep."""
    core = Core(settings(), 1)
    core.waiting.hold([Hold("queue", "mail")])
    assert core.may_sleep(1.0)
    core.waiting.hold([])
    assert not core.may_sleep(1.0)

    turn = core.turn(1.0, claiming=True, blocked=False, in_flight_bytes=0)
    assert turn.routes is not None
    assert turn.routes.routes == (key_of("queue:mail"),)
    assert turn.limit >= turn.routes.limit > settings().batch_size // 2 - 2

    row = ClaimedRow(1, 0, 0, 0)
    core.turned(turn, Reply(None, [], waited=[(row, key_of("queue:mail"))]), 1.0)
    assert len(core.fetched(Fetched([MAIL], []), 1.0).publish) == 1
    core.confirmed([MAIL], 1.0)

    turn = core.turn(2.0, claiming=True, blocked=False, in_flight_bytes=0)
    core.turned(turn, Reply(None, []), 2.0)
    assert core.may_sleep(1.0)
    turn = core.turn(3.0, claiming=True, blocked=False, in_flight_bytes=0)
    assert turn.routes is None


def test_what_waits_for_a_hold_that_nobody_remembers_is_let_go() -> None:
    """A relay that starts finds it in the database; what is still held stays there."""
    holds = Holds()
    holds.replace([Hold("queue", "mail")])
    holds.found([key_of("queue:mail"), key_of("queue:letters")])

    assert holds.wishes() == {key_of("queue:letters"): ALL}


def test_what_is_paused_again_is_let_go_no_longer() -> None:
    """What was not claimed meanwhile waits where it is."""
    holds = Holds()
    for state in ([Hold("queue", "mail")], [], [Hold("queue", "mail")]):
        holds.replace(state)

    assert holds.wishes() == {}


def test_what_is_let_go_of_one_hold_may_be_held_by_another() -> None:
    """It waits under the key of that one."""
    holds = Holds()
    holds.replace([Hold("queue", "mail"), Hold("task", "shop.*")])
    holds.replace([Hold("task", "shop.*")])

    _, [refusal] = holds.sort([MAIL])

    assert refusal.reason is Reason.PAUSED
    assert refusal.wait is not None
    assert refusal.wait.key == key_of("task:shop.*")
