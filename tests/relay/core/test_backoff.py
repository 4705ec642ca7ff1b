"""Pauses grow, have a ceiling, and differ between relays."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.core.backoff import (
    BUSY_POLL,
    IDLE_POLL,
    MAX_RETRY_DELAY,
    QUIET,
    QUIET_POLL,
    poll_interval,
    retry_delay,
)
from outbox_relay.errors import BrokerLost, RelayError, SchemaError, StatementFailed, StoreLost
from outbox_relay.loop.reconnect import MAX_DATABASE_DELAY, MAX_RECONNECT_DELAY, pause


@given(st.floats(0, 1e6))
def test_a_look_at_the_table_is_never_far_off(idle: float) -> None:
    """Soon after a message, and still often after a day of none."""
    assert BUSY_POLL <= poll_interval(idle) <= QUIET_POLL
    assert idle >= QUIET or poll_interval(idle) <= IDLE_POLL


def test_the_longer_idle_the_rarer_the_look() -> None:
    """Right after a message as often as can be, later as rarely as may be."""
    pauses = [poll_interval(idle) for idle in (0, 0.01, 0.05, 1, 60)]

    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (BUSY_POLL, QUIET_POLL)


@given(st.floats(0, 3600), st.integers(1, 10_000))
def test_no_retry_waits_beyond_the_ceiling(first: float, attempts: int) -> None:
    """However many attempts there were, the next one comes, and never before its pause."""
    assert min(first, MAX_RETRY_DELAY) <= retry_delay(first, attempts) <= 1.25 * MAX_RETRY_DELAY


@given(st.integers(1, 7))
def test_a_retry_waits_about_twice_as_long_as_the_last_one(attempts: int) -> None:
    """Doubling, with up to a quarter on top so that a crowd does not come back as one."""
    expected = 2.0 ** (attempts - 1)

    assert expected <= retry_delay(1.0, attempts) <= 1.25 * expected


def failed(error: RelayError, attempts: int) -> Any:
    """What tenacity knows after so many attempts, of which the last one ended like that."""
    return SimpleNamespace(
        attempt_number=attempts, outcome=SimpleNamespace(exception=lambda: error)
    )


@given(st.integers(1, 10_000))
def test_reconnecting_has_a_ceiling(attempts: int) -> None:
    """A broker that comes back after an hour is noticed within seconds."""
    assert 0 <= pause(failed(BrokerLost("refused"), attempts)) <= MAX_RECONNECT_DELAY


@given(st.integers(1, 10_000), st.sampled_from([StoreLost, StatementFailed, SchemaError]))
def test_a_database_is_asked_every_second(attempts: int, lost: type[RelayError]) -> None:
    """However long it was away: two seconds later a relay publishes, the attempt included."""
    assert 0 <= pause(failed(lost("refused"), attempts)) <= MAX_DATABASE_DELAY <= 1.0


def test_two_relays_do_not_come_back_as_one() -> None:
    """The pause before reconnecting is random over its whole length."""
    for error in (BrokerLost("refused"), StoreLost("refused")):
        assert len({pause(failed(error, 10)) for _ in range(20)}) > 1
