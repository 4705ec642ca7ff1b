"""For what outboxes are alike, as keys: those with one key share what it is for. Pure.

Each key holds what its purpose depends on and nothing else, as the more it holds, the fewer share.
Secrets are alike where their values come from one source, whatever they are called.
"""

from collections.abc import Hashable

from outbox_relay.broker.registry import OF_BROKERS
from outbox_relay.errors import SettingsError
from outbox_relay.settings import Settings


def for_watch(settings: Settings) -> Hashable:
    """One connection looks after all of these while they rest."""
    return settings.database_url.source, settings.statement_timeout, settings.doorbell


def for_questions(settings: Settings) -> Hashable:
    """One session can ask all of these, one after another."""
    return settings.database_url.source, settings.statement_timeout


def for_session(settings: Settings) -> Hashable:
    """A session that the relay of one has left is set anew for another."""
    return settings.database_url.source


def for_broker(settings: Settings) -> Hashable:
    """Their broker is there, or away, for all of these."""
    return settings.broker_url.source


def for_depths(settings: Settings) -> Hashable:
    """One connection can be asked how deep the queues of all of these are."""
    return settings.broker_url.source, settings.broker_transport_options.source


def for_check(settings: Settings) -> Hashable:
    """`doctor` would find the same of the broker for each of these."""
    own = tuple(sorted((name, repr(value)) for name, value in settings.of_brokers.items()))
    return for_depths(settings), settings.declare, own


def for_publisher(settings: Settings) -> Hashable | None:
    """One publishes as the other would; None where a publisher is for nobody else.

    Of several URLs, poison suspects go to the one that this outbox's other messages went to.
    """
    try:
        urls = settings.broker_url.read()
    except SettingsError:  # the file is being replaced
        return None
    if ";" in urls:
        return None
    of_brokers = tuple(settings.of(each) for each in OF_BROKERS)
    times = settings.lease, settings.confirm_timeout
    return urls, settings.declare, settings.window, times, of_brokers
