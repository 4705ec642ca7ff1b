"""A confirm waits for what OUTBOX_REDIS_CONFIRM asks for, and a server that cannot is refused."""

import pytest
import redis

from outbox_relay.broker.redis.durability import Durability
from outbox_relay.errors import BrokerLost, SettingsError
from servers import Valkey
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until
from tests.relay.broker.redis.conftest import OpenPublisher, land, publish
from tests.relay.messages import messages


def replica_of(primary: Valkey, own_valkey: OwnValkey) -> Valkey:
    """A second server that follows the first, in step with it."""
    replica = own_valkey({"replicaof": f"127.0.0.1 {primary.port}", "masterauth": primary.password})
    with redis.Redis.from_url(primary.url) as client:
        wait_until(lambda: client.wait(1, 100) == 1, 20, "the replica in step")
    return replica


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("memory", Durability()),
        ("fsync", Durability(fsync=True)),
        ("replicated:2", Durability(replicas=2)),
        ("fsync+replicated:1", Durability(fsync=True, replicas=1)),
    ],
)
def test_the_levels_read_as_they_are_written(text: str, level: Durability) -> None:
    """And are shown in messages as they were set."""
    assert Durability.parse(text) == level
    assert str(level) == text


@pytest.mark.parametrize("text", ["", "disk", "replicated", "replicated:0", "fsync+"])
def test_anything_else_is_refused(text: str) -> None:
    """The message lists what there is."""
    with pytest.raises(ValueError, match=r"memory, replicated:N, fsync or fsync\+replicated:N"):
        Durability.parse(text)


@pytest.mark.usefixtures("waitaof")
@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_fsync_confirms_what_is_on_the_disk(
    own_valkey: OwnValkey, open_publisher: OpenPublisher, appendfsync: str
) -> None:
    """A window of batches is proved by few questions: waiting does not add up."""
    publisher = open_publisher(own_valkey({"appendfsync": appendfsync}).url, "fsync")
    sent = messages(500)

    for start in range(0, 500, 20):
        publisher.publish(sent[start : start + 20])

    assert land(publisher).confirmed == sent


@pytest.mark.usefixtures("waitaof")
def test_without_an_append_only_file_there_is_no_fsync(
    own_valkey: OwnValkey, open_publisher: OpenPublisher
) -> None:
    """A setting to change, not an outage to wait out."""
    server = own_valkey({"appendonly": "no"})

    with pytest.raises(SettingsError, match=r"OUTBOX_REDIS_CONFIRM=fsync.*appendonly"):
        open_publisher(server.url, "fsync")


@pytest.mark.usefixtures("waitaof")
def test_a_server_older_than_waitaof_is_refused(
    own_valkey: OwnValkey, open_publisher: OpenPublisher
) -> None:
    """As Redis before 7.2 does, this server does not know the command."""
    server = own_valkey({"rename-command": 'WAITAOF ""'})

    with pytest.raises(SettingsError, match=r"OUTBOX_REDIS_CONFIRM=fsync.*unknown command"):
        open_publisher(server.url, "fsync")


@pytest.mark.parametrize("level", ["replicated:1", "fsync+replicated:1"])
def test_a_missing_replica_is_an_outage(
    valkey: Valkey, open_publisher: OpenPublisher, level: str
) -> None:
    """Nothing is published that could not be confirmed; the message says what is missing."""
    with pytest.raises(BrokerLost, match=r"only 0 of 1 replicas"):
        open_publisher(valkey.url, level)


@pytest.mark.parametrize("level", ["replicated:1", "fsync+replicated:1"])
def test_a_confirmed_message_is_on_the_replica(
    valkey: Valkey, own_valkey: OwnValkey, open_publisher: OpenPublisher, level: str
) -> None:
    """Should the primary be lost this instant, nothing confirmed is."""
    replica = replica_of(valkey, own_valkey)
    sent = messages(200)

    assert publish(open_publisher(valkey.url, level), sent).confirmed == sent

    valkey.kill()
    with redis.Redis.from_url(replica.url) as client:
        assert client.llen("celery") == 200


def test_a_replica_that_lags_holds_confirms_back(
    valkey: Valkey, own_valkey: OwnValkey, open_publisher: OpenPublisher
) -> None:
    """The publisher is blocked meanwhile, and nothing is published twice."""
    replica = replica_of(valkey, own_valkey)
    publisher = open_publisher(valkey.url, "replicated:1")
    sent = messages(30)

    with replica.frozen():
        publisher.publish(sent)
        wait_until(lambda: publisher.poll(0.1) and publisher.blocked, 10, "the pause")
        assert publisher.in_flight == 30

    assert land(publisher).confirmed == sent
    assert not publisher.blocked
    with redis.Redis.from_url(valkey.url) as client:
        assert client.llen("celery") == 30


def test_a_replica_that_stays_away_is_an_outage(
    valkey: Valkey, own_valkey: OwnValkey, open_publisher: OpenPublisher
) -> None:
    """After the confirm timeout; what was published stays in doubt."""
    replica = replica_of(valkey, own_valkey)
    publisher = open_publisher(valkey.url, "replicated:1", confirm_timeout=1.5)
    sent = messages(3)
    replica.kill()

    publisher.publish(sent)
    with pytest.raises(BrokerLost, match="only 0 of 1 replicas"):
        wait_until(lambda: publisher.poll(0.1) and None, 15, "the loss")
    assert publisher.unconfirmed() == sent
