"""What a kind of broker is to the rest of the relay: the URLs it is named by, and how to use it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from outbox_relay.broker.dead_letters import DeadLetters, NoDeadLetters
from outbox_relay.broker.publisher import Publisher
from outbox_relay.broker.sounder import NoSounder, Sounder
from outbox_relay.core.depth import Depth
from outbox_relay.core.finding import Finding
from outbox_relay.core.place import Bounds, Search
from outbox_relay.core.route import Route
from outbox_relay.settings import Settings
from outbox_relay.settings.setting import Setting


class Connect(Protocol):
    """Connects to one URL; raises BrokerLost, or SettingsError where no attempt could succeed."""

    def __call__(self, url: str, options: Mapping[str, Any], for_suspects: bool, /) -> Publisher:
        """A publisher, or one `for_suspects`."""


def _unsearched(*_: object) -> None:
    """A broker that shows no message."""


def _no_sounder(_url: str, _settings: Settings) -> Sounder:
    """A broker that does not tell how deep its queues are."""
    return NoSounder()


def _none(_url: str, _settings: Settings) -> DeadLetters:
    """A broker that has no dead letters."""
    return NoDeadLetters()


@dataclass(frozen=True, slots=True)
class Broker:
    """One kind of broker. It loads its client library only when it is used."""

    name: str
    schemes: tuple[str, ...]
    #: Called once for each relay: what is remembered between connections is remembered there.
    connector: Callable[[Settings], Connect]
    #: What `doctor` finds at one URL, given where messages go. Raises as `Connect` does.
    check: Callable[[str, Settings, Sequence[Route]], list[Finding]]
    #: How deep these queues are, and who empties them. Raises as `Connect` does.
    depths: Callable[[str, Settings, Sequence[str]], list[Depth]] = lambda *_: []
    #: Where these messages lie, sent to these queues; None where it can be searched for no id.
    search: Callable[[str, Settings, Sequence[str], Collection[str], Bounds], Search | None] = (
        _unsearched
    )
    #: A connection to its queues of dead letters. Raises as `Connect` does.
    dead_letters: Callable[[str, Settings], DeadLetters] = _none
    #: A connection that is asked for depths again and again. Raises as `Connect` does.
    sounder: Callable[[str, Settings], Sounder] = _no_sounder
    #: The share of its memory that messages may fill; None where that is not looked at.
    memory_share: Callable[[Settings], float | None] = lambda _: None
    #: Whether its workers take lower priorities first.
    lowest_first: bool = False
    #: What only its publishers can be told, and what only its check can be.
    settings: tuple[Setting[Any], ...] = ()
    check_settings: tuple[Setting[Any], ...] = ()
