"""A sleeper gets up when something is due; where that brings nothing, it does not lie down at once.

Else it would look, get up, claim and lie down again without a pause, for as long as somebody's
transaction holds a row that is due.
"""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from outbox_relay.core.claim import Turn
from outbox_relay.loop import sleep as module
from outbox_relay.loop.sleep import TRY_EVERY, Sleep
from outbox_relay.postgres.doorbell import Look
from outbox_relay.postgres.store import Store
from tests.relay.core.test_decide import core

BELL = SimpleNamespace(watching=True, lie_down=lambda: True, wait=lambda _: False)
STORE = cast("Store", SimpleNamespace(bell=BELL, look=lambda _: Look(False, -1.0)))
TURN = cast("Turn", cast("Any", None))


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> Sleep:
    """One that was woken a moment ago by what has been due for a second."""
    monkeypatch.setattr(module, "monotonic", lambda: 10.0)
    sleep = Sleep()
    assert sleep.lie_down(STORE, 10.0, idle=5.0)
    assert not sleep.finds_work(STORE, TURN)
    assert sleep.nap(STORE, core(), until=12.0)
    assert not sleep.asleep
    return sleep


def test_it_waits_a_moment(woken: Sleep) -> None:
    """And polls until then."""
    assert not woken.lie_down(STORE, 10.1, idle=5.1)
    assert woken.lie_down(STORE, 10.0 + TRY_EVERY, idle=5.0 + TRY_EVERY)


def test_what_was_due_may_come(woken: Sleep) -> None:
    """Then it lies down as soon as after any other message."""
    assert woken.lie_down(STORE, 10.1, idle=0.05)
