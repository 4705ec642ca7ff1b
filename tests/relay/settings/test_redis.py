"""Redis's own settings: read as Celery writes them, and refused by name where they are wrong."""

import pytest

from outbox_relay.broker.redis.durability import MEMORY, Durability
from outbox_relay.broker.redis.settings import CONFIRM
from outbox_relay.configuration import from_environment
from outbox_relay.errors import SettingsError
from outbox_relay.settings import Settings
from outbox_relay.settings.values import transport_options


def read(**variables: str) -> Settings:
    """The settings of an environment with these variables."""
    urls = {"OUTBOX_DATABASE_URL": "postgresql://db/shop", "OUTBOX_BROKER_URL": "redis://mq/0"}
    return from_environment({**urls, **variables})


def test_nothing_said_means_redis_own_reply() -> None:
    """And Celery's defaults for everything else."""
    settings = read()

    assert settings.of(CONFIRM) == MEMORY
    assert transport_options(settings.broker_transport_options.read()) == {}


def test_both_are_read() -> None:
    """A level, and the value of broker_transport_options as JSON."""
    settings = read(
        OUTBOX_REDIS_CONFIRM="fsync+replicated:2",
        OUTBOX_BROKER_TRANSPORT_OPTIONS='{"global_keyprefix": "shop:"}',
    )

    assert settings.of(CONFIRM) == Durability(fsync=True, replicas=2)
    assert transport_options(settings.broker_transport_options.read()) == {
        "global_keyprefix": "shop:"
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OUTBOX_REDIS_CONFIRM", "disk"),
        ("OUTBOX_BROKER_TRANSPORT_OPTIONS", "{hunter2}"),
        ("OUTBOX_BROKER_TRANSPORT_OPTIONS", '["hunter2"]'),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(name: str, text: str) -> None:
    """The options may hold a password for sentinels, so they are not repeated."""
    with pytest.raises(SettingsError, match=name) as caught:
        read(**{name: text})

    assert "hunter2" not in str(caught.value)
