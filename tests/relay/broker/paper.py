"""A broker that files messages in a folder: what a third one has to bring, and nothing else.

test_another.py copies it into the registry's folder as a package of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from outbox_relay.broker.kind import Broker, Connect
from outbox_relay.broker.publisher import Publisher
from outbox_relay.core.finding import Finding, ok
from outbox_relay.core.message import Message, Outcomes, Refusal
from outbox_relay.core.route import Route
from outbox_relay.settings import Settings
from outbox_relay.settings.setting import Setting

FOLDER: Final = Setting("OUTBOX_PAPER_FOLDER", Path, "/tmp", "where messages are filed")


class Clerk:
    """Confirms what it has filed. Implements `publisher.Publisher`."""

    max_suspects = 1
    in_flight_bytes = stuck = 0
    blocked = hangs = spotless = False
    max_body = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filed: list[Message] = []

    @property
    def in_flight(self) -> int:
        """Messages filed and not confirmed."""
        return len(self._filed)

    def publish(self, messages: Sequence[Message]) -> list[Refusal]:
        """File each under its id."""
        for message in messages:
            (self._folder / message.message_id).write_bytes(message.body)
        self._filed += messages
        return []

    def poll(self, _timeout: float) -> Outcomes:
        """All of it is there."""
        filed, self._filed = self._filed, []
        return Outcomes(filed, [], [(0.0, len(filed))] if filed else [])

    def unconfirmed(self) -> list[Message]:
        """What nobody has asked about."""
        return self._filed

    def unpublished(self) -> list[Message]:
        """Nothing waits before it is filed."""
        return []

    def close(self) -> None:
        """Nothing is open."""


def _connector(settings: Settings) -> Connect:
    def connect(_url: str, _options: Mapping[str, Any], _for_suspects: bool) -> Publisher:
        return Clerk(settings.of(FOLDER))

    return connect


def _check(_url: str, settings: Settings, _routes: Sequence[Route]) -> list[Finding]:
    return [ok("broker", f"files in {settings.of(FOLDER)}")]


BROKER: Final = Broker("paper", ("paper",), _connector, _check, settings=(FOLDER,))
