"""What doctor says of a server's version: out of support, and which defaults are other ones."""

from datetime import date

import pytest

from outbox_relay.core import versions
from outbox_relay.core.finding import Level

TODAY = date(2026, 11, 28)


@pytest.mark.parametrize(
    ("version", "level", "text"),
    [
        ("9.6.24", Level.WARN, "PostgreSQL 9.6.24 gets no more fixes from its makers"),
        ("14.20 (Debian 14.20-1)", Level.WARN, "no more fixes from its makers since 2026-11-12"),
        ("15.18", Level.OK, "is maintained until 2027-11-11"),
        ("19beta1", Level.OK, "PostgreSQL 19beta1 is not known to be out of support"),
    ],
)
def test_postgres(version: str, level: Level, text: str) -> None:
    """By the number of its major version, whatever a distribution adds to it."""
    found = versions.postgres(version, TODAY)

    assert found.level is level
    assert text in found.text


def test_a_series_ends_after_its_last_day() -> None:
    """On the day itself it is still maintained."""
    assert versions.postgres("14.1", date(2026, 11, 12)).level is Level.OK
    assert versions.postgres("14.1", date(2026, 11, 13)).level is Level.WARN


@pytest.mark.parametrize(
    ("version", "level", "changes"),
    [
        ("3.10.8", Level.WARN, ()),
        ("3.13.7", Level.WARN, ()),
        ("4.0.5", Level.WARN, ("16 MiB", "20 deliveries")),
        ("4.3.6", Level.OK, ("16 MiB", "20 deliveries", "x-queue-mode")),
        ("5.0.0-rc.1", Level.OK, ("16 MiB", "x-queue-mode")),
    ],
)
def test_rabbitmq(version: str, level: Level, changes: tuple[str, ...]) -> None:
    """Support and the defaults that changed since RabbitMQ 3."""
    support, *defaults = versions.rabbitmq(version, TODAY)

    assert support.level is level
    assert bool(defaults) is bool(changes)
    assert all(change in defaults[0].text for change in changes)


@pytest.mark.parametrize(
    ("name", "version", "level"),
    [
        ("Redis", "6.2.14", Level.WARN),
        ("Redis", "7.0.15", Level.WARN),
        ("Redis", "7.2.16", Level.OK),
        ("Redis", "8.0.6", Level.OK),
        ("Valkey", "7.2.15", Level.OK),
        ("Valkey", "9.1.2", Level.OK),
    ],
)
def test_redis_and_valkey(name: str, version: str, level: Level) -> None:
    """Told apart: every series of Valkey is maintained."""
    assert versions.redis(name, version).level is level


def test_a_version_that_is_none_is_no_error() -> None:
    """A broker may greet with anything."""
    for version in ("", "master"):
        (found,) = versions.rabbitmq(version, TODAY)
        assert (found.level, "not known" in found.text) == (Level.OK, True)
