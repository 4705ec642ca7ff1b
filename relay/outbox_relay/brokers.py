"""Chooses the publisher for a broker URL; several URLs separated by `;` mean fail-over."""

from typing import Any

from outbox_relay.amqp.isolation import AmqpIsolation
from outbox_relay.amqp.publisher import AmqpPublisher
from outbox_relay.amqp.topology import Topology
from outbox_relay.errors import BrokerLost, SettingsError
from outbox_relay.publisher import Open, Publisher
from outbox_relay.redis.connect import SCHEMES as REDIS_SCHEMES
from outbox_relay.redis.doubts import Doubts
from outbox_relay.redis.publisher import RedisPublisher
from outbox_relay.settings import Settings, transport_options


def publisher_factory(settings: Settings) -> Open:
    """Connects to the first broker that answers, reading the secret anew."""
    doubts = Doubts()

    def connect(*, apart: bool = False) -> Publisher:
        failures = []
        try:
            urls = settings.broker_url.read()
        except SettingsError as error:  # it was readable at the start: a secret being replaced
            raise BrokerLost(str(error)) from error
        for url in urls.split(";"):
            try:
                return _connect(url.strip(), settings, doubts, apart=apart)
            except BrokerLost as error:
                failures.append(str(error))
        raise BrokerLost("; ".join(failures))

    return connect


def _connect(url: str, settings: Settings, doubts: Doubts, *, apart: bool) -> Publisher:
    scheme = url.partition("://")[0]
    if scheme in ("amqp", "amqps"):
        # A broker that was restarted may have lost what it had: what is known is known anew.
        topology = Topology(url, declare=settings.declare == "missing")
        kind = AmqpIsolation if apart else AmqpPublisher
        return kind(url, topology, settings.confirm_timeout, settings.reserved)
    if scheme in REDIS_SCHEMES:
        return RedisPublisher(
            url,
            _options(settings),
            settings.redis_confirm,
            doubts,
            declare=settings.declare == "missing",
            confirm_timeout=settings.confirm_timeout,
        )
    raise SettingsError(f"OUTBOX_BROKER_URL: {scheme}:// is not supported")


def _options(settings: Settings) -> dict[str, Any]:
    try:
        return transport_options(settings.transport_options.read())
    except ValueError as error:
        raise SettingsError(f"{settings.transport_options.name} is malformed: {error}") from error
