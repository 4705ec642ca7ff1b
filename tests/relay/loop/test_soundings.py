"""The broker is asked while there is something to ask, and only then."""

from collections.abc import Iterable
from queue import Queue

import pytest

from outbox_relay.broker.sounder import Told
from outbox_relay.core.depths import Depths
from outbox_relay.core.memory import Memory, Used
from outbox_relay.errors import BrokerLost
from outbox_relay.loop import soundings
from outbox_relay.loop.soundings import DepthWatch
from outbox_relay.observe.metrics import Metrics
from tests.relay.messages import a_message

DEADLINE = 30.0


class Sounder:
    """Answers as it is told, and says what it was asked."""

    def __init__(self, *answers: Told | BrokerLost, used: tuple[Used, ...] = ()) -> None:
        self.answers, self.events = list(answers), Queue[object]()
        self.used = list(used)

    def open(self) -> "Sounder":
        """Connect."""
        self.events.put("open")
        return self

    def read(self, queues: Iterable[str]) -> Told:
        """Answer, or break."""
        self.events.put(list(queues))
        answer = self.answers.pop(0)
        if isinstance(answer, BrokerLost):
            raise answer
        return answer

    def memory(self) -> Used:
        """Answer."""
        self.events.put("memory")
        return self.used.pop(0)

    def close(self) -> None:
        """Disconnect."""
        self.events.put("closed")

    def next(self) -> object:
        """What happened next."""
        return self.events.get(timeout=DEADLINE)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as there is something to ask, or nothing any more."""
    for name in ("EVERY", "AFTER_FAILURE", "IDLE"):
        monkeypatch.setattr(soundings, name, 0.001)


def test_a_relay_that_publishes_nothing_asks_nothing() -> None:
    """Not even for a connection; it asks once what has passed, and closes."""
    depths, sounder = Depths(10), Sounder(Told({"mail": 1}), Told({"other": 1}))
    with DepthWatch(depths, sounder.open, Metrics()):
        depths.sort([a_message(routing_key="mail")], 0.0)
        assert [sounder.next() for _ in range(3)] == ["open", ["mail"], "closed"]

        depths.sort([a_message(routing_key="other")], 0.0)
        assert [sounder.next() for _ in range(3)] == ["open", ["other"], "closed"]


def test_it_goes_on_after_a_broker_that_breaks() -> None:
    """With a new connection."""
    depths, sounder = Depths(10), Sounder(BrokerLost("gone"), Told({"mail": 1}))
    with DepthWatch(depths, sounder.open, Metrics()):
        depths.sort([a_message(routing_key="mail")], 0.0)
        assert [sounder.next() for _ in range(5)] == ["open", ["mail"], "closed", "open", ["mail"]]


def test_how_full_the_broker_is_is_asked_once_something_has_passed() -> None:
    """Not the depth of queues as long as there is room; and told in the metrics."""
    depths, metrics = Depths(None, Memory(0.5)), Metrics()
    sounder = Sounder(used=(Used(1 << 20, 4 << 20), Used(3 << 20, 4 << 20)))
    told: list[object] = []
    with DepthWatch(depths, sounder.open, metrics):
        for _ in range(2):
            assert depths.free([a_message()], 0.0)
            told += [sounder.next() for _ in range(3)]

    assert told == ["open", "memory", "closed"] * 2
    assert not depths.free([a_message()], 0.0)
