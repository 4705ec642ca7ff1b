"""What the demo is told by its environment; a wrong value stops it with one sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["rabbitmq", "redis"]

_KINDS: dict[str, Kind | None] = {
    "": None,
    "rabbitmq": "rabbitmq",
    "redis": "redis",
    "valkey": "redis",
}


class SettingsError(Exception):
    """Permanent: an environment variable is wrong; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Which servers to use: None means a private one, and for the broker the best there is.

    `keep` leaves everything running after the proof, until Ctrl-C.
    """

    broker: Kind | None
    database_url: str | None
    broker_url: str | None
    keep: bool = False


def read(environment: Mapping[str, str]) -> Settings:
    """Read BROKER, DATABASE_URL, BROKER_URL and KEEP."""
    name = environment.get("BROKER", "").strip().lower()
    if name not in _KINDS:
        raise SettingsError(f"BROKER={name}: use rabbitmq or redis, or leave it out")
    url = environment.get("BROKER_URL") or None
    kind = _KINDS[name]
    if url is not None:
        scheme = url.partition("://")[0]
        given: Kind = "redis" if scheme.startswith(("redis", "valkey")) else "rabbitmq"
        if kind not in (None, given):
            raise SettingsError(f"BROKER={name} and a BROKER_URL of {scheme}:// contradict")
        kind = given
    keep = environment.get("KEEP", "").strip() not in ("", "0")
    return Settings(kind, environment.get("DATABASE_URL") or None, url, keep)
