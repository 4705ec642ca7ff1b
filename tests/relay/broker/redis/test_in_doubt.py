"""A batch whose replies were lost is published twice only where it had not arrived."""

import pytest

from outbox_relay.broker.redis.in_doubt import REMEMBERED_SECONDS, BatchInDoubt, InDoubt
from outbox_relay.errors import BrokerLost
from servers import Valkey
from tests.fixtures.waiting import wait_until
from tests.relay.broker.redis.conftest import Client, OpenPublisher, publish
from tests.relay.messages import messages

DOUBT = BatchInDoubt(4, ((1, "a"), (2, "b")), {b"celery"})


def transactions(client: Client) -> int:
    """How many connections are in the middle of one."""
    return sum(each["multi"] != "-1" for each in client.client_list())


@pytest.mark.parametrize("level", ["memory", "fsync"])
def test_what_had_arrived_is_confirmed_unsent(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher, level: str
) -> None:
    """The connection is lost after the server has carried the batches out."""
    in_doubt, sent = InDoubt(), messages(300)
    publisher = open_publisher(valkey.url, level, in_doubt=in_doubt)
    for start in range(0, 300, 100):
        publisher.publish(sent[start : start + 100])
    wait_until(lambda: client.llen("celery") == 300, 10, "all of it in Redis")
    publisher.close()

    said = publish(open_publisher(valkey.url, level, in_doubt=in_doubt), sent)

    assert said.confirmed == sent
    assert client.llen("celery") == 300


def test_what_had_not_arrived_is_sent(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """The connection is lost before the server has carried out the second batch."""
    in_doubt, sent = InDoubt(), messages(200)
    publisher = open_publisher(valkey.url, in_doubt=in_doubt)
    publisher.publish(sent[:100])
    wait_until(lambda: client.llen("celery") == 100, 10, "the first batch")
    client.client_pause(60_000, all=False)
    publisher.publish(sent[100:])
    wait_until(lambda: transactions(client) == 1, 10, "the second batch at the server")
    publisher.close()
    wait_until(lambda: transactions(client) == 0, 10, "the connection's end noticed")
    client.client_unpause()

    said = publish(open_publisher(valkey.url, in_doubt=in_doubt), sent)

    assert {message.id for message in said.confirmed} == {message.id for message in sent}
    assert client.llen("celery") == 200


@pytest.mark.parametrize("right", ["smembers", "type"])
def test_a_server_that_does_not_tell_is_asked_again(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher, right: str
) -> None:
    """A right that is missing is named, at the start too; what had arrived is not sent again."""
    in_doubt, sent = InDoubt(), messages(100)
    publisher = open_publisher(valkey.url, in_doubt=in_doubt)
    publisher.publish(sent)
    wait_until(lambda: client.llen("celery") == 100, 10, "all of it in Redis")
    publisher.close()
    client.acl_setuser("default", enabled=True, commands=[f"-{right}"])
    for doubts in (in_doubt, InDoubt()):
        with pytest.raises(BrokerLost, match=rf"'{right}' command \(needed: "):
            open_publisher(valkey.url, in_doubt=doubts)
    client.acl_setuser("default", enabled=True, commands=[f"+{right}"])

    said = publish(open_publisher(valkey.url, in_doubt=in_doubt), sent)

    assert said.confirmed == sent
    assert client.llen("celery") == 100


@pytest.mark.usefixtures("waitaof")
def test_a_server_that_crashed_still_knows(
    valkey: Valkey, client: Client, open_publisher: OpenPublisher
) -> None:
    """The marker is as durable as the messages: one transaction holds them."""
    in_doubt, sent = InDoubt(), messages(50)
    publisher = open_publisher(valkey.url, in_doubt=in_doubt)
    publisher.publish(sent)
    wait_until(lambda: client.llen("celery") == 50, 10, "all of it in Redis")
    client.execute_command("WAITAOF", 1, 0, 5000)
    publisher.close()
    valkey.kill()
    valkey.start()

    assert publish(open_publisher(valkey.url, in_doubt=in_doubt), sent).confirmed == sent
    assert client.llen("celery") == 50


def test_a_message_is_spared_once() -> None:
    """Whoever asks to have it published again gets a second copy."""
    in_doubt = InDoubt()
    in_doubt.remember(b"m", [DOUBT])
    assert in_doubt.answered([[b"4"], b"list"], now=0.0) == 2

    assert [in_doubt.arrived((1, "a"), now=1.0) for _ in range(2)] == [True, False]


def test_a_message_is_not_spared_for_long() -> None:
    """What another relay took meanwhile must not be swallowed when it is replayed."""
    in_doubt = InDoubt()
    in_doubt.remember(b"m", [DOUBT])
    in_doubt.answered([[b"4"], b"none"], now=0.0)

    assert not in_doubt.arrived((1, "a"), now=REMEMBERED_SECONDS)


@pytest.mark.parametrize(
    "replies",
    [
        ([b"3", b"5"], b"list"),
        ([], b"none"),
        ([b"4"], b"string"),
        (PermissionError("NOPERM"), b"list"),
    ],
    ids=["other batches", "no marker", "a list that is none", "no answer"],
)
def test_in_doubt_a_message_is_sent_again(replies: tuple[object, bytes]) -> None:
    """A duplicate is permitted, a loss is not."""
    in_doubt = InDoubt()
    in_doubt.remember(b"m", [DOUBT])

    assert in_doubt.answered(replies, now=0.0) == 0
    assert not in_doubt.arrived((1, "a"), now=0.0)
