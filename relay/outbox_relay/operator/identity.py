"""What a relay is set to, as a few characters that other relays' can be compared with.

It is the name of its connection to the database, which every login can read: so it holds hashes,
of what is no secret. Each setting that decides what becomes of a message has a hash of its own, so
that one can say which differs, and not what it is.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, Final, Self
from urllib.parse import urlsplit

import outbox_relay
from outbox_relay.broker.registry import OF_BROKERS
from outbox_relay.errors import SettingsError
from outbox_relay.settings import Settings
from outbox_relay.settings.setting import Setting
from outbox_relay.settings.table import (
    ALLOW_CONTENT_TYPES,
    ALLOW_EXCHANGES,
    DECLARE,
    FENCE,
    MAX_ATTEMPTS,
    RETENTION,
    RETRY_DELAY,
)

#: What two relays of one outbox should agree on, in the order of the hashes.
COMPARED: Final[tuple[Setting[Any], ...]] = (
    DECLARE,
    MAX_ATTEMPTS,
    RETRY_DELAY,
    RETENTION,
    ALLOW_CONTENT_TYPES,
    ALLOW_EXCHANGES,
    FENCE,
    *sorted((each for each in OF_BROKERS if not each.secret), key=lambda each: each.name),
)
#: The transport options that say where messages go, and hold no password.
ADDRESSING: Final = ("global_keyprefix", "master_name", "priority_steps", "sep")
SCHEMA_WIDTH: Final = 4
BROKER_WIDTH: Final = 6
SETTING_WIDTH: Final = 2
#: Of many outboxes, whoever publishes for one of them: the watch beside it is the relay.
SEAT: Final = "outbox-relay seat "
_NAME: Final = re.compile(
    r"outbox-relay (?:seat )?(\d\S*) ([\w-]{4})\.([\w-]{6})\.([\w-]*)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A relay's version, and hashes of its schema, its broker and its settings."""

    version: str
    schema: str
    broker: str
    settings: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Of a relay with these settings; the secrets are read anew."""
        values = [
            settings.of(each) if each in OF_BROKERS else getattr(settings, each.field)
            for each in COMPARED
        ]
        return cls(
            _version(),
            _hash(settings.schema, SCHEMA_WIDTH),
            _hash(_places(settings), BROKER_WIDTH),
            "".join(_hash(_text(value), SETTING_WIDTH) for value in values),
        )

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Of a connection with this name; None where it says nothing."""
        found = _NAME.fullmatch(name)
        return cls(*found.groups()) if found else None

    def __str__(self) -> str:
        return f"outbox-relay {self._text}"

    @property
    def seat(self) -> str:
        """The name of a seat's connection."""
        return f"{SEAT}{self._text}"

    @property
    def _text(self) -> str:
        return f"{self.version} {self.schema}.{self.broker}.{self.settings}"

    def differences(self, other: Self) -> list[str]:
        """The variables in which two of one version are not set alike."""
        ends = range(0, SETTING_WIDTH * len(COMPARED), SETTING_WIDTH)
        return [
            setting.name
            for setting, at in zip(COMPARED, ends, strict=True)
            if self.settings[at : at + SETTING_WIDTH] != other.settings[at : at + SETTING_WIDTH]
        ]


@cache
def _version() -> str:
    """Looked up once: a relay that may open no more files asks again with every attempt."""
    return str(outbox_relay.__version__)


def _text(value: object) -> str:
    """The same in every process: the order of a set is not."""
    return str(sorted(value) if isinstance(value, frozenset | set) else value)


def _places(settings: Settings) -> str:
    """Where messages are published: hosts, ports and virtual hosts, without any password."""
    urls = _or_nothing(settings.broker_url.read)
    options = _or_nothing(settings.broker_transport_options.read) or "{}"
    places = sorted(_place(url.strip()) for url in urls.split(";"))
    return json.dumps([places, *(json.loads(options).get(each) for each in ADDRESSING)])


def _or_nothing(read: Callable[[], str]) -> str:
    """A secret; nothing while it is being replaced."""
    try:
        return read()
    except SettingsError:
        return ""


def _place(url: str) -> list[str]:
    parts = urlsplit(f"http://{url.partition('://')[2]}")
    return [parts.netloc.rpartition("@")[2].lower(), parts.path]


def _hash(text: str, width: int) -> str:
    return urlsafe_b64encode(sha256(text.encode()).digest()).decode()[:width]
