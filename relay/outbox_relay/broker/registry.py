"""The brokers there are, and which one a URL means; several URLs separated by `;` mean fail-over.

Another broker is a package beside these, and one line in BROKERS.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from outbox_relay.broker import amqp, redis
from outbox_relay.broker.dead_letters import DeadLetters
from outbox_relay.broker.kind import Broker
from outbox_relay.broker.publisher import Open, Publisher
from outbox_relay.broker.sounder import Sounder
from outbox_relay.core.depths import Depths
from outbox_relay.core.memory import Memory
from outbox_relay.errors import BrokerLost, SettingsError
from outbox_relay.settings import Settings
from outbox_relay.settings.values import transport_options

T = TypeVar("T")

BROKERS: Final[tuple[Broker, ...]] = (amqp.BROKER, redis.BROKER)
SCHEMES: Final = tuple(scheme for broker in BROKERS for scheme in broker.schemes)
#: What the brokers' publishers read, and what only `doctor` does.
OF_BROKERS: Final = tuple(setting for broker in BROKERS for setting in broker.settings)
OF_CHECKS: Final = tuple(setting for broker in BROKERS for setting in broker.check_settings)


def broker_of(url: str) -> Broker:
    """The broker a URL means. Raises SettingsError where it is none of these."""
    scheme = url.partition("://")[0]
    for broker in BROKERS:
        if scheme in broker.schemes:
            return broker
    raise SettingsError(f"OUTBOX_BROKER_URL: {scheme}:// is not supported")


def publisher_factory(settings: Settings) -> Open:
    """Connects to the first broker that answers, reading the secrets anew.

    Suspects go where other messages went. `elsewhere` begins with the URL after that.
    Raises SettingsError where those it was started with are wrong; others are being replaced.
    """
    connectors = {broker.name: broker.connector(settings) for broker in BROKERS}
    first: tuple[str, str] | None = None
    used = 0  # the position of the URL that was connected to last

    def connect(*, for_suspects: bool = False, elsewhere: bool = False) -> Publisher:
        nonlocal first, used
        try:
            secrets = settings.broker_url.read(), settings.broker_transport_options.read()
        except SettingsError as error:  # it was readable at the start
            raise BrokerLost(str(error)) from error
        first = first or secrets
        urls, options = [*map(str.strip, secrets[0].split(";"))], transport_options(secrets[1])
        begin = used + 1 if elsewhere else used if for_suspects else 0
        failures = []
        for position in (number % len(urls) for number in range(begin, begin + len(urls))):
            url = urls[position]
            try:
                publisher = connectors[broker_of(url).name](url, options, for_suspects)
                used = used if for_suspects else position
                return publisher
            except BrokerLost as error:
                failures.append(str(error))
            except SettingsError as error:
                if secrets == first:
                    raise
                failures.append(str(error))
        raise BrokerLost("; ".join(failures))

    return connect


def open_dead_letters(settings: Settings) -> DeadLetters:
    """Those of the first broker that answers, the secrets read anew. Raises as connecting does."""
    return _of_first(settings, lambda broker, url: broker.dead_letters(url, settings))


def depths_of(settings: Settings) -> Depths | None:
    """What keeps queues short, where anything is to."""
    urls = map(str.strip, settings.broker_url.read().split(";"))
    shares = [s for url in urls if (s := broker_of(url).memory_share(settings)) is not None]
    if not shares and settings.max_depth is None:
        return None
    return Depths(settings.max_depth, Memory(min(shares)) if shares else None)


def lowest_first(settings: Settings) -> bool:
    """Whether workers of the first of its brokers take lower priorities first."""
    return broker_of(settings.broker_url.read().partition(";")[0].strip()).lowest_first


def open_sounder(settings: Settings) -> Sounder:
    """Tells the depths of queues; likewise."""
    return _of_first(settings, lambda broker, url: broker.sounder(url, settings))


def _of_first(settings: Settings, use: Callable[[Broker, str], T]) -> T:
    failures = []
    for url in map(str.strip, settings.broker_url.read().split(";")):
        try:
            return use(broker_of(url), url)
        except BrokerLost as error:
            failures.append(str(error))
    raise BrokerLost("; ".join(failures))
