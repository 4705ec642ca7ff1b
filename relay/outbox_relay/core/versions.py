"""What a server's version means: whether its makers maintain it, and what it does otherwise.

Pure, and as known in November 2026: of what is newer than these tables it says nothing. A
distribution may maintain a series for longer than its makers do.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Final

from outbox_relay.core.finding import Finding, ok, warn

Series = tuple[int, ...]

#: The last day on which each series was, or will be, maintained.
POSTGRES: Final[Mapping[Series, date]] = {
    (12,): date(2024, 11, 21),
    (13,): date(2025, 11, 13),
    (14,): date(2026, 11, 12),
    (15,): date(2027, 11, 11),
    (16,): date(2028, 11, 9),
    (17,): date(2029, 11, 8),
    (18,): date(2030, 11, 14),
}
#: The community's RabbitMQ is maintained in its newest series alone.
RABBITMQ: Final[Mapping[Series, date]] = {
    (3, 11): date(2023, 6, 1),
    (3, 12): date(2024, 2, 21),
    (3, 13): date(2024, 9, 17),
    (4, 0): date(2025, 4, 15),
    (4, 1): date(2026, 1, 30),
}
#: Older ones get no more fixes, of a day that does not matter any more.
OLDEST_REDIS: Final[Series] = (7, 2)

#: What RabbitMQ does since which series, unless it is configured otherwise.
RABBITMQ_CHANGES: Final[tuple[tuple[Series, str], ...]] = (
    ((4, 0), "takes bodies up to 16 MiB, 128 MiB before"),
    ((4, 0), "gives up a message of a quorum queue after 20 deliveries"),
    ((4, 0), "serves priorities in quorum queues, where none counts as 4"),
    ((4, 3), "refuses queues declared with x-queue-mode"),
)


def postgres(version: str, today: date) -> Finding:
    """Judge a Postgres by what it answers as `server_version`."""
    return _judge("PostgreSQL", version, _series(version, 1), POSTGRES, today)


def rabbitmq(version: str, today: date) -> list[Finding]:
    """Judge a RabbitMQ by the version it greets with."""
    series = _series(version, 2)
    findings = [_judge("RabbitMQ", version, series, RABBITMQ, today)]
    if changes := [text for since, text in RABBITMQ_CHANGES if since <= series]:
        text = f"RabbitMQ {version}, unless configured otherwise, {'; '.join(changes)}"
        findings.append(ok("defaults", text))
    return findings


def redis(name: str, version: str) -> Finding:
    """Judge a Redis or Valkey by what its INFO says."""
    if name == "Redis" and _series(version, 2) < OLDEST_REDIS:
        return _ended(name, version, "")
    return ok(f"{name} version", f"{name} {version} is not known to be out of support")


def _judge(
    name: str, version: str, series: Series, ends: Mapping[Series, date], today: date
) -> Finding:
    end = ends.get(series)
    if end is not None and end < today:
        return _ended(name, version, f" since {end}")
    if end is None and () < series < min(ends):
        return _ended(name, version, "")
    until = f"is maintained until {end}" if end else "is not known to be out of support"
    return ok(f"{name} version", f"{name} {version} {until}")


def _ended(name: str, version: str, since: str) -> Finding:
    return warn(
        f"{name} version",
        f"{name} {version} gets no more fixes from its makers{since}",
        f"plan an upgrade of {name}, unless whoever packages it still maintains it",
    )


def _series(version: str, parts: int) -> Series:
    """Return the first numbers of a version; none where there are none."""
    return tuple(map(int, re.findall(r"\d+", version)[:parts]))
