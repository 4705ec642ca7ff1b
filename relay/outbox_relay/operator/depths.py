"""The queues that messages go to, as the broker has them: how deep, and how many consumers."""

from collections.abc import Sequence

from outbox_relay.broker.registry import broker_of
from outbox_relay.core.depth import Depth
from outbox_relay.errors import BrokerLost
from outbox_relay.operator.routes import sample
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings


def read(settings: Settings) -> list[Depth]:
    """Those of the first broker that answers. Raises StoreLost, BrokerLost or SettingsError."""
    with Session.open(settings) as session:
        queues = queues_of(session)
    return of(settings, queues)


def queues_of(session: Session) -> list[str]:
    """Those that messages of an outbox go to, those with most unsent ones first."""
    return list(dict.fromkeys(name for route in sample(session) for name in route.queues))


def of(settings: Settings, queues: Sequence[str]) -> list[Depth]:
    """These, of the first broker that answers. Raises BrokerLost or SettingsError."""
    failures = []
    for url in map(str.strip, settings.broker_url.read().split(";")):
        try:
            return broker_of(url).depths(url, settings, queues)
        except BrokerLost as error:
            failures.append(str(error))
    raise BrokerLost("; ".join(failures))
