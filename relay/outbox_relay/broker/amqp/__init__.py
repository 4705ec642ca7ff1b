"""RabbitMQ and other brokers of AMQP 0-9-1: pipelined, confirmed, each message by its own tag."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from outbox_relay.broker.amqp.settings import ALLOW_RESERVED, MANAGEMENT_URL
from outbox_relay.broker.dead_letters import DeadLetters
from outbox_relay.broker.kind import Broker, Connect
from outbox_relay.broker.publisher import Publisher
from outbox_relay.broker.sounder import Sounder
from outbox_relay.core.depth import Depth
from outbox_relay.core.finding import Finding
from outbox_relay.core.route import Route
from outbox_relay.settings import Settings


def _connector(settings: Settings) -> Connect:
    from outbox_relay.broker.amqp.publisher import AmqpPublisher
    from outbox_relay.broker.amqp.suspects import SuspectPublisher
    from outbox_relay.broker.amqp.topology import Topology

    def connect(url: str, _options: Mapping[str, Any], for_suspects: bool) -> Publisher:
        # A broker that was restarted may have lost its queues: each connection declares anew.
        topology = Topology(
            url,
            declare=settings.declare == "missing",
            room=max(1, settings.window // 2),
            stay=settings.lease / 2,
        )
        kind = SuspectPublisher if for_suspects else AmqpPublisher
        return kind(url, topology, settings.confirm_timeout, settings.of(ALLOW_RESERVED))

    return connect


def _check(url: str, settings: Settings, routes: Sequence[Route]) -> list[Finding]:
    from outbox_relay.broker.amqp.check import rabbitmq

    return rabbitmq.check(url, settings, routes)


def _depths(url: str, _settings: Settings, queues: Sequence[str]) -> list[Depth]:
    from outbox_relay.broker.amqp.check import depth

    return depth.depths(url, queues)


def _dead_letters(url: str, _settings: Settings) -> DeadLetters:
    from outbox_relay.broker.amqp.dead_letters import AmqpDeadLetters

    return AmqpDeadLetters(url)


def _sounder(url: str, _settings: Settings) -> Sounder:
    from outbox_relay.broker.amqp.sounder import AmqpSounder

    return AmqpSounder(url)


BROKER: Final = Broker(
    "RabbitMQ",
    ("amqp", "amqps"),
    _connector,
    _check,
    _depths,
    dead_letters=_dead_letters,
    sounder=_sounder,
    settings=(ALLOW_RESERVED,),
    check_settings=(MANAGEMENT_URL,),
)
