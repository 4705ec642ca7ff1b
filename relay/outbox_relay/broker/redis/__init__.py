"""Redis and Valkey: what Celery's workers expect there, confirmed as strongly as Redis can."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from outbox_relay.broker.dead_letters import DeadLetters
from outbox_relay.broker.kind import Broker, Connect
from outbox_relay.broker.publisher import Publisher
from outbox_relay.broker.redis.settings import CONFIRM, MAX_MEMORY
from outbox_relay.broker.sounder import Sounder
from outbox_relay.core.depth import Depth
from outbox_relay.core.finding import Finding
from outbox_relay.core.place import Bounds, Search
from outbox_relay.core.route import Route
from outbox_relay.settings import Settings
from outbox_relay.settings.values import transport_options


def _connector(settings: Settings) -> Connect:
    from outbox_relay.broker.redis.in_doubt import InDoubt
    from outbox_relay.broker.redis.publisher import RedisPublisher

    in_doubt = InDoubt()

    def connect(url: str, options: Mapping[str, Any], _for_suspects: bool) -> Publisher:
        return RedisPublisher(
            url,
            dict(options),
            settings.of(CONFIRM),
            in_doubt,
            declare=settings.declare == "missing",
            confirm_timeout=settings.confirm_timeout,
        )

    return connect


def _check(url: str, settings: Settings, routes: Sequence[Route]) -> list[Finding]:
    from outbox_relay.broker.redis import check

    return check.check(url, settings, routes)


def _depths(url: str, settings: Settings, queues: Sequence[str]) -> list[Depth]:
    from outbox_relay.broker.redis import depth

    options = dict(transport_options(settings.broker_transport_options.read()))
    return depth.depths(url, options, queues)


def _search(
    url: str,
    settings: Settings,
    queues: Sequence[str],
    message_ids: Collection[str],
    bounds: Bounds,
) -> Search:
    from outbox_relay.broker.redis import search

    options = dict(transport_options(settings.broker_transport_options.read()))
    return search.search(url, options, queues, message_ids, bounds)


def _dead_letters(url: str, settings: Settings) -> DeadLetters:
    from outbox_relay.broker.redis.dead_letters import RedisDeadLetters

    options = dict(transport_options(settings.broker_transport_options.read()))
    return RedisDeadLetters(url, options)


def _sounder(url: str, settings: Settings) -> Sounder:
    from outbox_relay.broker.redis.sounder import RedisSounder

    options = dict(transport_options(settings.broker_transport_options.read()))
    return RedisSounder(url, options)


def _memory_share(settings: Settings) -> float | None:
    return settings.of(MAX_MEMORY)


BROKER: Final = Broker(
    "Redis",
    ("redis", "rediss", "sentinel", "valkey", "valkeys"),
    _connector,
    _check,
    _depths,
    _search,
    _dead_letters,
    sounder=_sounder,
    memory_share=_memory_share,
    lowest_first=True,
    settings=(CONFIRM, MAX_MEMORY),
)
