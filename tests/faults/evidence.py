"""What shows that a fault has struck, or that it has not: logs, metrics and sessions."""

from typing import Final, LiteralString
from urllib.request import urlopen

from servers.server import Server
from tests.fixtures.programs import Relay

#: The relays' sessions in their database.
BACKENDS: Final[LiteralString] = """
SELECT pid FROM pg_stat_activity
WHERE application_name LIKE 'outbox-relay%%' AND datname = current_database()
"""
#: Ends them; returns how many there were.
TERMINATE: Final[LiteralString] = (
    f"SELECT count(pg_terminate_backend(pid)) FROM ({BACKENDS}) AS relay"
)


class Said:
    """What a server writes into its log from now on."""

    def __init__(self, server: Server, words: str) -> None:
        self._log, self._words = server.log, words
        self._before = self._count()

    def again(self) -> bool:
        """Whether it has said those words."""
        return self._count() > self._before

    def _count(self) -> int:
        return self._log.read_text(errors="replace").count(self._words)


def is_alive(relay: Relay) -> bool:
    """Whether /livez says so."""
    with urlopen(f"http://{relay.address}/livez", timeout=5) as answer:
        return bool(answer.status == 200)


def returned(relay: Relay) -> bool:
    """Whether a message has come back from the broker."""
    return "outbox_returned_total 0.0" not in relay.metrics()


def isolations(relay: Relay) -> int:
    """How many times a channel died of what was on it."""
    return len(relay.events("suspects_isolated"))
