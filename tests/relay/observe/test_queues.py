"""A relay's metrics tell of a queue that nobody consumes, and go on when it cannot be asked."""

from threading import Event

from outbox_relay.configuration import from_environment
from outbox_relay.core.depth import Depth
from outbox_relay.errors import BrokerLost
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.queues import QueueWatch
from outbox_relay.operator.depths import read
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Outbox


def test_a_queue_without_consumers_is_seen(outbox: Outbox, broker: Broker, database: str) -> None:
    """From the outbox's routes, at a real broker."""
    broker.declare("celery")
    outbox.add_sent()
    variables = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}
    settings, metrics = from_environment(variables), Metrics()

    def consumers() -> float | None:
        return metrics.registry.get_sample_value("outbox_queue_consumers", {"queue": "celery"})

    with QueueWatch(lambda: read(settings), metrics, first=0):
        wait_until(lambda: consumers() == 0, 20, "the queue among the metrics")


def test_a_look_that_fails_is_followed_by_another() -> None:
    """The broker may be away for a while."""
    metrics, again = Metrics(), Event()
    answers = iter([BrokerLost("away"), None])

    def look() -> list[Depth]:
        if error := next(answers, None):
            raise error
        again.set()
        return []

    with QueueWatch(look, metrics, first=0, every=0):
        assert again.wait(10)
