"""10,000 messages with the settings everybody has, while something dies in the middle of the drain.

Faults 2, 7 and 9 as people meet them: not at a chosen point, but wherever it happens to be.
"""

from typing import Final

import pytest

from tests.faults.lab import DEADLINE, Lab
from tests.fixtures.waiting import wait_until

ROWS: Final = 10_000
WINDOW: Final = 4_000
#: The relay's own defaults, instead of those that are good for hitting a certain point.
ORDINARY: Final = {
    "OUTBOX_WINDOW": str(WINDOW),
    "OUTBOX_BATCH_SIZE": "500",
    "OUTBOX_MAX_ATTEMPTS": "10",
    "OUTBOX_RETRY_DELAY": "1s",
    "OUTBOX_LEASE": "10s",
    "OUTBOX_CONFIRM_TIMEOUT": "30s",
    "OUTBOX_STATEMENT_TIMEOUT": "10s",
}


def in_the_middle(lab: Lab) -> None:
    """Commit, and return when some of it is sent."""
    lab.commit(ROWS)
    wait_until(lambda: lab.sent() > 0, DEADLINE, "a beginning")


@pytest.mark.fault(2)
def test_the_relay_is_killed(broker_lab: Lab) -> None:
    """Lost 0, duplicates within its window; the next one goes on when the claims are over."""
    lab = broker_lab
    relay = lab.relay(ORDINARY)
    with lab.fault(lambda: lab.sent() < ROWS):
        in_the_middle(lab)
        relay.kill()
    lab.relay(ORDINARY)

    lab.finish(duplicates=WINDOW, note=f"in a drain of {ROWS:,} rows")


@pytest.mark.fault(9)
def test_the_broker_is_killed(mortal_lab: Lab) -> None:
    """Lost 0, and the relay goes on by itself when the broker is back."""
    lab = mortal_lab
    relay = lab.relay(ORDINARY)
    with lab.fault(lambda: relay.events("broker_lost")):
        in_the_middle(lab)
        lab.queue.server.kill()
        assert lab.sent() < ROWS
        relay.wait_for_event("broker_lost")
        lab.queue.server.start()

    lab.finish(duplicates=WINDOW, note=f"in a drain of {ROWS:,} rows")


@pytest.mark.fault(7)
def test_two_relays(broker_lab: Lab) -> None:
    """Both work on it, and without a fault nothing is sent twice."""
    lab = broker_lab
    lab.commit(ROWS)
    with lab.fault(lambda: all(_published(relay.metrics()) for relay in relays), count=0):
        relays = [lab.relay(ORDINARY, wait=False) for _ in range(2)]
        for relay in relays:
            relay.wait_ready()
        lab.commit(ROWS)  # whichever was first has done with the rest
        lab.wait_until_sent()

    lab.finish(duplicates=0, note=f"{2 * ROWS:,} rows, ordinary settings")


def _published(metrics: str) -> float:
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("outbox_published_total{")
    )
