"""Steps on stand-ins for both servers, with a clock of their own."""

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outbox_relay.broker.publisher import Publisher
from outbox_relay.core.backoff import IDLE_POLL
from outbox_relay.core.claim import Claim, ClaimedRow, Fetched, Reply, Turn
from outbox_relay.core.fence import Fence
from outbox_relay.core.holds import Hold, key_of
from outbox_relay.core.message import NOTHING, Message, Outcomes, Refusal
from outbox_relay.core.rates import Grant
from outbox_relay.loop import cycle as module
from outbox_relay.loop.cycle import Cycle
from outbox_relay.loop.quarantine import Quarantine
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.tracing.trail import Untraced
from outbox_relay.postgres.store import Store
from tests.relay.core.test_decide import core
from tests.relay.messages import a_message


class Servers:
    """A database that always has more, and answers in `takes` seconds; a broker that confirms."""

    in_flight = in_flight_bytes = stuck = 0
    blocked, hangs, max_body = False, False, None

    def __init__(self) -> None:
        self.now, self.takes, self.publishing, self.last = 1_000.0, 0.0, 0.0, 0
        self.bell = SimpleNamespace(get_up=lambda: None)
        self.swept: list[float] = []
        self.waits: list[float] = []
        self._reply = Reply(None, [])
        self._published: list[Message] = []

    def ask(self, claimed: Claim | None, turn: Turn | None) -> None:
        """The store's."""
        rows = []
        if turn and turn.limit:
            rows = [ClaimedRow(self.last + n, 0, 0, 0) for n in range(1, turn.limit + 1)]
            self.last += turn.limit
            if turn.floor == 0:
                self.swept.append(self.now)
        fetched = [a_message(id=row.id, claim_id=claimed.claim_id) for row in claimed.rows] if (
            claimed
        ) else []  # fmt: skip
        self._reply = Reply(Fetched(fetched, []) if claimed else None, rows)

    def reply(self) -> Reply:
        """The store's."""
        self.now += self.takes
        return self._reply

    def publish(self, messages: list[Message]) -> list[Refusal]:
        """The publisher's."""
        self.now += self.publishing
        self._published += messages
        return []

    def poll(self, wait: float) -> Outcomes:
        """The publisher's."""
        confirmed, self._published = self._published, []
        self.waits.append(wait)
        self.now += max(wait, 0.05)
        return Outcomes(confirmed, [], []) if confirmed else NOTHING


def sweeps(monkeypatch: pytest.MonkeyPatch, servers: Servers, seconds: float) -> list[float]:
    """When it read from the head within so many seconds of full batches."""
    monkeypatch.setattr(module, "monotonic", lambda: servers.now)
    monkeypatch.setattr(Fence, "next_look", lambda *_: float("inf"))
    quarantine = Quarantine(cast("Any", None))
    cycle = Cycle(core(), quarantine, Metrics(), Fence(0, 10.0), Untraced(), forget=False)
    end = servers.now + seconds
    while servers.now < end:
        cycle.step(cast("Store", servers), cast("Publisher", servers), claiming=True)
    return servers.swept


def test_a_broker_that_takes_long_puts_off_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim from the head is asked for, and a batch published meanwhile: only the one counts."""
    servers = Servers()
    servers.publishing = 0.7

    swept = sweeps(monkeypatch, servers, 60.0)

    assert max(after - before for before, after in itertools.pairwise(swept)) < 3.0


def test_a_database_that_takes_long_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as long as it took."""
    servers = Servers()
    servers.takes = 0.7

    swept = sweeps(monkeypatch, servers, 60.0)

    assert min(after - before for before, after in itertools.pairwise(swept)) >= 7.0


def test_a_turn_that_becomes_due_between_two_looks_is_not_waited_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though something is in flight, and may be for long: it has room, and a message may wait."""
    servers = Servers()
    servers.in_flight = 1
    monkeypatch.setattr(module, "monotonic", lambda: servers.now)
    quarantine = Quarantine(cast("Any", None))
    cycle = Cycle(core(), quarantine, Metrics(), Fence(0, 10.0), Untraced(), forget=False)
    cycle._next_turn = servers.now - 0.001  # it has passed since the last look

    assert cycle._pause(cast("Publisher", servers)) == 0.0


def test_a_relay_that_waits_for_an_alarm_to_end_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks as often as one that has nothing to do, not as one that is busy."""
    servers = Servers()
    servers.blocked = True

    assert sweeps(monkeypatch, servers, 1.0) == []

    assert min(servers.waits) >= IDLE_POLL


class Drained(Servers):
    """A database with nothing to claim, where another relay is rung."""

    def __init__(self) -> None:
        super().__init__()
        self.bell = SimpleNamespace(
            get_up=lambda: None,
            lie_down=lambda: False,
            watch=lambda: None,
            watching=False,
            another_watches=True,
        )

    def ask(self, *_: object) -> None:
        """The store's."""
        self._reply = Reply(None, [])

    def has_work(self, *_: object) -> bool:
        """The store's."""
        return False


def test_a_relay_that_another_is_rung_for_uses_a_token_at_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It looks no more than every two seconds otherwise, and the token would be late by as much."""
    servers, decides = Drained(), core()
    monkeypatch.setattr(module, "monotonic", lambda: servers.now)
    quarantine = Quarantine(cast("Any", None))
    cycle = Cycle(decides, quarantine, Metrics(), Fence(0, 10.0), Untraced(), forget=False)

    def waits() -> float:
        cycle.step(cast("Store", servers), cast("Publisher", servers), claiming=True, sleeping=True)
        return servers.waits[-1]

    waits()
    assert waits() == pytest.approx(2.0)
    decides.waiting.hold([Hold("queue", "mail", per_second=1.0, burst=1.0)])
    decides.found_waiting([key_of("rate:queue:mail")])
    decides.waiting.granted([Grant("queue:mail", 1, 1.3)], servers.now)
    assert waits() == pytest.approx(0.3)
