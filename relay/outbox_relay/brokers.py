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
    """Connects to the first broker that answers, reading the secrets anew.

    Raises SettingsError where those it was started with are wrong; others are being replaced.
    """
    doubts = Doubts()
    first: tuple[str, str] | None = None

    def connect(*, apart: bool = False) -> Publisher:
        nonlocal first
        try:
            secrets = settings.broker_url.read(), settings.transport_options.read()
        except SettingsError as error:  # it was readable at the start
            raise BrokerLost(str(error)) from error
        first = first or secrets
        urls, options = secrets[0].split(";"), transport_options(secrets[1])
        failures = []
        for url in urls:
            try:
                return _connect(url.strip(), options, settings, doubts, apart=apart)
            except BrokerLost as error:
                failures.append(str(error))
            except SettingsError as error:
                if secrets == first:
                    raise
                failures.append(str(error))
        raise BrokerLost("; ".join(failures))

    return connect


def _connect(
    url: str, options: dict[str, Any], settings: Settings, doubts: Doubts, *, apart: bool
) -> Publisher:
    scheme = url.partition("://")[0]
    if scheme in ("amqp", "amqps"):
        # A broker that was restarted may have lost what it had: what is known is known anew.
        topology = Topology(url, declare=settings.declare == "missing")
        kind = AmqpIsolation if apart else AmqpPublisher
        return kind(url, topology, settings.confirm_timeout, settings.reserved)
    if scheme in REDIS_SCHEMES:
        return RedisPublisher(
            url,
            options,
            settings.redis_confirm,
            doubts,
            declare=settings.declare == "missing",
            confirm_timeout=settings.confirm_timeout,
        )
    raise SettingsError(f"OUTBOX_BROKER_URL: {scheme}:// is not supported")
