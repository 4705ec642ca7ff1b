"""Twelve ways to lose a message after its confirm: each is named, exactly, and healed.

Of some hundred tasks some are struck, of ten thousand five hundred in the long run. What is lost
without a trace is missing, and `replay --missing` sends it again; what came home is dead, with the
reason, and `retry` does. Every effect happens once.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Queue
from redis import Redis

from servers import RabbitMQ, Valkey
from tests.end_to_end.charging import HELD, LIMIT
from tests.end_to_end.ground import NEW, Ground, Size
from tests.fixtures.broker import Broker, OwnRabbitMQ
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until
from tests.worker.ledger import Ledger

pytestmark = pytest.mark.timeout(1200)

SIZES = [
    pytest.param(Size(tasks=200, struck=20, seconds=90), id="200"),
    pytest.param(Size(tasks=10_000, struck=500, seconds=400), id="10000", marks=pytest.mark.long),
]
MakeGround = Callable[[str], Ground]
EMPTY = "'celery' is empty, and without a consumer nothing of it can be unacknowledged"
NO_QUEUE = "the broker shows no queue 'celery'"
NOWHERE = "no queue of the broker has it, and no worker has it unacknowledged"


@pytest.fixture(params=SIZES)
def ground_of(
    request: pytest.FixtureRequest,
    database: str,
    tmp_path: Path,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
) -> MakeGround:
    """The programs, with the broker at a URL."""

    def make(url: str) -> Ground:
        ledger = Ledger(database)
        ledger.run("CREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY, note text)")
        relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=url)
        folder = tmp_path / "gate"
        folder.mkdir()
        ground = Ground(ledger, url, request.param, folder, celery_worker)
        ground.watched()
        return ground

    return make


@pytest.fixture
def on_rabbitmq(ground_of: MakeGround, broker: Broker) -> Ground:
    """With a virtual host of RabbitMQ."""
    return ground_of(broker.url)


@pytest.fixture
def on_redis(ground_of: MakeGround, valkey_url: str) -> Ground:
    """With a Valkey."""
    return ground_of(valkey_url)


@pytest.fixture(params=["rabbitmq", "redis"])
def ground(request: pytest.FixtureRequest, ground_of: MakeGround) -> Ground:
    """With each of them."""
    url = "broker_url" if request.param == "rabbitmq" else "valkey_url"
    return ground_of(request.getfixturevalue(url))


def in_the_queue(ground: Ground, strike: Callable[[], None], reason: str) -> None:
    """What waits in the queue at the strike is gone, and nothing else is."""
    ran = ground.run_others()
    struck = ground.send(ground.size.struck)
    strike()

    ground.gone(struck, reason, certain=reason != NO_QUEUE)

    ground.worker()
    ground.replay(struck, ran)


def reason_on(ground: Ground, rabbitmq: str) -> str:
    """A Redis is searched by id, and says the same of every loss."""
    return rabbitmq if ground.url.startswith("amqp") else NOWHERE


def test_the_queue_is_purged(ground: Ground) -> None:
    """By somebody who thought that nobody needs what is in it."""

    def purge() -> None:
        with Connection(ground.url) as connection:
            Queue("celery")(connection.default_channel).purge()

    in_the_queue(ground, purge, reason_on(ground, EMPTY))


@pytest.mark.parametrize("anew", [True, False], ids=["declared anew", "not there"])
def test_the_queue_is_deleted(on_rabbitmq: Ground, anew: bool) -> None:
    """And declared anew, so that it looks as if nothing had happened; or not."""

    def delete() -> None:
        with Connection(on_rabbitmq.url) as connection:
            queue = Queue("celery")(connection.default_channel)
            queue.delete()
            if anew:
                queue.declare()

    in_the_queue(on_rabbitmq, delete, EMPTY if anew else NO_QUEUE)


def test_the_list_is_deleted(on_redis: Ground) -> None:
    """A queue of Redis: it is there as long as something is in it."""

    def delete() -> None:
        with Redis.from_url(on_redis.url) as client:
            assert client.delete("celery") == 1

    in_the_queue(on_redis, delete, NOWHERE)


def test_the_virtual_host_is_deleted(on_rabbitmq: Ground, broker: Broker) -> None:
    """And made anew: it has no queue any more."""

    def forget() -> None:
        broker.node.delete_vhost(broker.vhost)
        broker.node.create_vhost(broker.vhost)

    in_the_queue(on_rabbitmq, forget, NO_QUEUE)


def test_a_redis_is_flushed(on_redis: Ground) -> None:
    """By a test that thought it had the server for itself."""

    def flush() -> None:
        with Redis.from_url(on_redis.url) as client:
            client.flushall()

    in_the_queue(on_redis, flush, NOWHERE)


def test_a_redis_evicts(ground_of: MakeGround, own_valkey: OwnValkey) -> None:
    """A cache: out of memory, it deletes whatever it likes, the queue as well."""
    ground = ground_of(own_valkey({"maxmemory-policy": "allkeys-random"}).url)

    def evict() -> None:
        with Redis.from_url(ground.url) as client:
            client.config_set("maxmemory", "1mb")
            client.ping()
            wait_until(lambda: not client.exists("celery"), 30, "the eviction")
            client.config_set("maxmemory", "0")

    in_the_queue(ground, evict, NOWHERE)


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
def test_the_broker_loses_its_disk(
    ground_of: MakeGround, request: pytest.FixtureRequest, kind: str
) -> None:
    """It comes up again with nothing, at the same place."""
    server: RabbitMQ | Valkey
    if kind == "rabbitmq":
        own_rabbitmq: OwnRabbitMQ = request.getfixturevalue("own_rabbitmq")
        server = own_rabbitmq()
        ground, data = ground_of(server.url()), "data"
    else:
        own_valkey: OwnValkey = request.getfixturevalue("own_valkey")
        server = own_valkey()
        ground, data = ground_of(server.url), "appendonlydir"

    def lose() -> None:
        server.kill()
        assert (server.folder / data).exists()
        shutil.rmtree(server.folder / data)
        server.start()

    in_the_queue(ground, lose, reason_on(ground, NO_QUEUE))


def policy(broker: Broker, definition: str) -> Callable[[], None]:
    """Apply a policy to the queue; what is returned takes it away."""
    broker.ctl("set_policy", "lossy", "^celery$", definition)
    return lambda: print(broker.ctl("clear_policy", "lossy"))


def test_messages_expire_in_the_queue(on_rabbitmq: Ground, broker: Broker) -> None:
    """With dead letters, they come home; the reason is RabbitMQ's."""
    broker.declare("celery.dead")
    ran = on_rabbitmq.run_others()
    clear = policy(
        broker,
        '{"message-ttl": 100, "dead-letter-exchange": "",'
        ' "dead-letter-routing-key": "celery.dead"}',
    )
    struck = on_rabbitmq.send(on_rabbitmq.size.struck)

    on_rabbitmq.came_home(struck, "expired: dead letter of queue 'celery', 1 time(s)")

    clear()
    on_rabbitmq.worker()
    on_rabbitmq.retry(struck, ran)


def test_messages_expire_and_nothing_remains(on_rabbitmq: Ground, broker: Broker) -> None:
    """Without dead letters, they are missing."""
    ran = on_rabbitmq.run_others()
    clear = policy(broker, '{"message-ttl": 100}')
    struck = on_rabbitmq.send(on_rabbitmq.size.struck)
    wait_until(lambda: broker.depth("celery") == 0, 30, "the end of all")

    on_rabbitmq.gone(struck, EMPTY, certain=True)

    clear()
    on_rabbitmq.worker()
    on_rabbitmq.replay(struck, ran)


def test_the_queue_drops_its_head(on_rabbitmq: Ground, broker: Broker) -> None:
    """The oldest are gone, and the newest wait: once these have run, audit names the others."""
    ran = on_rabbitmq.run_others()
    struck = on_rabbitmq.send(on_rabbitmq.size.struck)
    clear = policy(broker, f'{{"max-length": {on_rabbitmq.size.struck}, "overflow": "drop-head"}}')
    waiting = on_rabbitmq.send(on_rabbitmq.size.struck)
    assert on_rabbitmq.missing() == struck | waiting
    clear()
    worker = on_rabbitmq.worker()
    on_rabbitmq.finished(waiting)
    worker.stop()

    on_rabbitmq.gone(struck, EMPTY, certain=True)

    on_rabbitmq.worker()
    on_rabbitmq.replay(struck, ran | waiting)


@pytest.mark.parametrize(
    ("task", "environment", "reason"),
    [
        (NEW, {}, "does not know the task, and threw it away"),
        ("shop.charge", {"CHARGING_ACCEPT": "yaml"}, "could not decode it, and threw it away"),
    ],
    ids=["unregistered", "undecodable"],
)
def test_a_worker_throws_them_away(
    ground: Ground, task: str, environment: dict[str, str], reason: str
) -> None:
    """As plain Celery does with what it does not know or cannot decode; its receipt says so."""
    ran = ground.run_others()
    worker = ground.worker(**environment)
    struck = ground.send(ground.size.struck, task)
    refused = "SELECT count(*) FROM inbox.receipt WHERE outcome IN ('unregistered', 'undecodable')"
    wait_until(lambda: ground.ledger.run(refused) == [(len(struck),)], 60, "their receipts")

    ground.gone(struck, reason, certain=True)

    worker.stop()
    ground.worker(CHARGING_TASKS=NEW)
    ground.replay(struck, ran)


@pytest.mark.parametrize(
    ("task", "environment", "reason"),
    [
        (NEW, {}, "unregistered task: worker "),
        ("shop.charge", {"CHARGING_ACCEPT": "yaml"}, "invalid task (ContentDisallowed): worker "),
    ],
    ids=["unregistered", "undecodable"],
)
def test_a_worker_puts_them_aside(
    ground: Ground, task: str, environment: dict[str, str], reason: str
) -> None:
    """With `reliable()` they come home instead."""
    ran = ground.run_others(CHARGING_RELIABLE="1")
    worker = ground.worker(CHARGING_RELIABLE="1", **environment)
    struck = ground.send(ground.size.struck, task)

    ground.came_home(struck, reason)

    worker.stop()
    ground.worker(CHARGING_RELIABLE="1", CHARGING_TASKS=NEW)
    ground.retry(struck, ran)


def test_a_worker_that_acknowledged_early_is_killed(
    ground: Ground, request: pytest.FixtureRequest
) -> None:
    """What it had begun is gone, also for the broker."""
    ran = ground.run_others()
    worker = ground.worker(f"--concurrency={ground.size.struck}", CHARGING_TASKS=HELD)
    struck = ground.send(ground.size.struck, HELD)
    wait_until(lambda: ground.at_the_gate() == len(struck), ground.size.seconds, "all at work")
    wait_until(lambda: unacknowledged(ground, request) == 0, 60, "their acknowledgements")
    worker.kill()

    ground.gone(struck, reason_on(ground, EMPTY), certain=True)

    ground.open_the_gate()
    ground.worker(CHARGING_TASKS=HELD)
    ground.replay(struck, ran)


def unacknowledged(ground: Ground, request: pytest.FixtureRequest) -> int:
    """How many messages the broker keeps for workers: a worker acknowledges after it has begun."""
    if ground.url.startswith("amqp"):
        broker: Broker = request.getfixturevalue("broker")
        counts = broker.ctl("list_queues", "messages_unacknowledged").split()
        return sum(int(count) for count in counts if count.isdigit())
    with Redis.from_url(ground.url) as client:
        return int(client.hlen("unacked"))


def test_the_delivery_limit(on_rabbitmq: Ground) -> None:
    """A quorum queue gives up what its workers give back again and again."""
    ran = on_rabbitmq.run_others(CHARGING_RELIABLE="1")
    struck = on_rabbitmq.send(on_rabbitmq.size.struck)
    with Connection(on_rabbitmq.url) as connection:
        channel: Any = connection.default_channel
        rejected = 0
        while rejected < (LIMIT + 1) * len(struck):
            message = wait_until(lambda: channel.basic_get("celery"), 60, "a delivery")
            channel.basic_reject(message.delivery_tag, requeue=True)
            rejected += 1

    on_rabbitmq.came_home(struck, "delivery limit: dead letter of queue 'celery'")

    on_rabbitmq.worker(CHARGING_RELIABLE="1")
    on_rabbitmq.retry(struck, ran)


def test_a_visibility_timeout_that_is_too_short(on_redis: Ground) -> None:
    """A copy, and no loss: nothing is named, and every effect happens once."""
    environment = {"CHARGING_VISIBILITY": "1", "CHARGING_TASKS": HELD}
    ran = on_redis.run_others()
    count = on_redis.size.struck
    first = on_redis.worker(f"--concurrency={2 * count}", **environment)
    struck = on_redis.send(count, HELD)
    wait_until(lambda: on_redis.at_the_gate() >= 2 * count, on_redis.size.seconds, "the copies")
    on_redis.open_the_gate()
    on_redis.finished(struck)

    on_redis.healed(struck | ran)

    first.kill()
