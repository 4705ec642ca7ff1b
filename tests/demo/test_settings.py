"""The demo says which of its settings is wrong, and what would be right."""

import pytest

from demo.settings import Settings, SettingsError, read


def test_without_settings_everything_is_private() -> None:
    """No server is named, so all are started."""
    assert read({}) == Settings(broker=None, database_url=None, broker_url=None)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("amqp://rabbit", "rabbitmq"),
        ("amqps://rabbit", "rabbitmq"),
        ("redis://r", "redis"),
        ("rediss://r", "redis"),
        ("valkey://v", "redis"),
    ],
)
def test_a_given_broker_tells_its_kind(url: str, kind: str) -> None:
    """BROKER need not repeat it."""
    assert read({"BROKER_URL": url}).broker == kind


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"BROKER": "kafka"}, "BROKER=kafka: use rabbitmq or redis"),
        ({"BROKER": "redis", "BROKER_URL": "amqp://rabbit"}, "contradict"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], words: str) -> None:
    """One sentence, before anything is started."""
    with pytest.raises(SettingsError, match=words):
        read(environment)
