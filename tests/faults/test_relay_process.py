"""Faults 1 to 8: the relay itself is killed, told to go, starved, doubled and paused."""

import signal

import pytest

from tests.faults.lab import DEADLINE, WINDOW, Lab
from tests.faults.relay_process import has_crashed, has_stopped, peak_memory
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until

MEGABYTE = 1 << 20


@pytest.mark.smoke
@pytest.mark.fault(1)
def test_killed_after_a_claim(lab: Lab) -> None:
    """Claimed and not published: sent once, by another, when the claim is over."""
    lab.commit(500)
    with lab.fault(lambda: has_crashed(relay)):
        relay = lab.relay(crash="claimed:3:SIGKILL")
    lab.relay()

    lab.finish(duplicates=WINDOW)  # of the claims before the third


@pytest.mark.fault(1)
def test_killed_after_its_first_claim(lab: Lab) -> None:
    """Nothing of it was published: no duplicate at all."""
    lab.commit(500)
    with lab.fault(lambda: has_crashed(relay) and not lab.queue.arrived()):
        relay = lab.relay(crash="claimed:1:SIGKILL")
    lab.relay()

    lab.finish(duplicates=0)


@pytest.mark.smoke
@pytest.mark.fault(2)
def test_killed_before_a_confirm(lab: Lab) -> None:
    """Published, confirmed by the broker, and the relay dies before it hears so."""
    relay = lab.relay()
    with lab.fault(lambda: has_crashed(relay)):
        lab.fill_the_window()
        relay.kill()
    lab.to_broker.heal()
    lab.relay()

    assert lab.finish().duplicated > 0


@pytest.mark.smoke
@pytest.mark.fault(3)
def test_killed_before_the_mark(lab: Lab) -> None:
    """Confirms heard, and not written down: those messages are sent again."""
    lab.commit(1000)
    with lab.fault(lambda: has_crashed(relay)):
        relay = lab.relay(crash="confirmed:3:SIGKILL")
    lab.relay()

    assert lab.finish().duplicated > 0


@pytest.mark.fault(4)
def test_killed_amid_the_mark(lab: Lab) -> None:
    """The database has committed a mark whose reply never comes: all of it holds, or nothing."""
    relay = lab.relay()
    with lab.fault(lambda: lab.to_database.evidence["held"] > 0 and has_crashed(relay)):
        for _ in range(10):
            lab.fill_the_window(500)
            before = lab.sent()
            lab.to_database.hold("down")
            lab.to_broker.heal()
            if _marks(lab, before):
                break
            lab.to_database.heal()  # it was another reply that we held
            lab.wait_until_sent()
        relay.kill()
    lab.to_database.heal()
    work = lab.run("SELECT count(*) FROM outbox.ready JOIN outbox.sent USING (id)")
    assert work == [(0,)]
    lab.relay()

    lab.finish()


@pytest.mark.fault(4)
def test_killed_after_the_mark(lab: Lab) -> None:
    """Nothing that was marked is sent again."""
    lab.commit(500)
    with lab.fault(lambda: has_crashed(relay)):
        relay = lab.relay(crash="marked:3:SIGKILL")
    lab.relay()

    lab.finish()


@pytest.mark.smoke
@pytest.mark.fault(5)
def test_told_to_go(lab: Lab) -> None:
    """SIGTERM in mid-drain: no new claim, none left behind, no duplicate, exit 0."""
    relay = lab.relay()
    with lab.fault(lambda: relay.wait() == 0 and lab.sent() < 2000):
        lab.under_way(2000)
        relay.terminate()
    assert lab.run("SELECT count(*) FROM outbox.ready WHERE lease_until > now()") == [(0,)]
    assert sum(lab.queue.arrived().values()) == lab.sent()
    lab.relay()

    lab.finish(duplicates=0)


@pytest.mark.fault(5)
@pytest.mark.parametrize("server", ["broker", "database"])
def test_told_to_go_while_a_server_is_silent(lab: Lab, server: str) -> None:
    """SIGTERM ends a relay within its grace, however long its other deadlines are."""
    relay = lab.relay(
        OUTBOX_GRACE_PERIOD="1s", OUTBOX_CONFIRM_TIMEOUT="5m", OUTBOX_STATEMENT_TIMEOUT="5m"
    )
    link = lab.to_broker if server == "broker" else lab.to_database
    with lab.fault(lambda: link.evidence["held"] > 0):
        lab.under_way()
        link.hold("down")
        lab.commit(500)
        wait_until(lambda: link.evidence["held"] > 0, DEADLINE, "silence")
        relay.terminate()
        relay.wait()
    link.heal()
    lab.relay()

    lab.finish()


@pytest.mark.fault(6)
def test_out_of_memory(lab: Lab) -> None:
    """Rows of 10 MB in a narrow address space: it dies, and one with room needs little of it."""
    lab.commit(40, padding=10 * MEGABYTE)
    with lab.fault(lambda: relay.wait(DEADLINE) != 0 and "MemoryError" in relay.output()):
        relay = lab.relay(memory=200 * MEGABYTE, wait=False)
    relay = lab.relay(OUTBOX_LEASE="10s", OUTBOX_CONFIRM_TIMEOUT="60s")
    lab.wait_until_sent()
    peak = peak_memory(relay)

    lab.finish(note=f"{peak // MEGABYTE} MB at most")
    assert peak < 600 * MEGABYTE


@pytest.mark.fault(6)
def test_large_bodies_are_let_go(lab: Lab) -> None:
    """A line too slow for them breaks again and again: what was in flight is not kept each time."""
    relay = lab.relay()
    lab.under_way(1)
    before = lab.to_broker.accepted
    with lab.fault(lambda: lab.to_broker.accepted - before >= 10, count=10):
        lab.to_broker.throttle(3 * MEGABYTE, "up")
        lab.commit(12, padding=10 * MEGABYTE)
        wait_until(lambda: lab.to_broker.accepted - before >= 10, DEADLINE, "ten connections")
    lab.to_broker.heal()
    lab.wait_until_sent()
    peak = peak_memory(relay)

    lab.finish(note=f"{peak // MEGABYTE} MB at most, after ten connections")
    assert peak < 600 * MEGABYTE


@pytest.mark.fault(7)
def test_two_relays(lab: Lab) -> None:
    """Both work on 10,000 rows, and no row goes out twice."""
    lab.commit(10_000)
    with lab.fault(lambda: all(_published(relay) for relay in relays), count=0):
        relays = [lab.relay(wait=False) for _ in range(2)]
        for relay in relays:
            relay.wait_ready()
        lab.wait_until_sent()

    lab.finish(duplicates=0)


@pytest.mark.fault(8)
def test_paused_beyond_its_claims(lab: Lab) -> None:
    """Its confirms come when another relay has sent all of it: a confirm always counts."""
    relay = lab.relay()
    lab.fill_the_window()
    resume = relay.freeze()
    with lab.fault(lambda: lab.queue.arrived().total() > lab.sent()):
        other = lab.relay(direct=True)
        lab.wait_until_sent()
        other.stop()
    lab.to_broker.heal()
    resume()

    lab.finish()
    assert relay.stop() == 0


@pytest.mark.fault(8)
def test_paused_before_it_writes_a_failure(lab: Lab) -> None:
    """The row it would bury has been sent by another: its word no longer counts."""
    with lab.fault(lambda: has_stopped(paused)):
        paused = lab.relay(crash="refused:1:SIGSTOP", OUTBOX_DECLARE="never")
        lab.commit(10)  # to a queue that is not there yet: refused, and no attempt is left
    lab.relay()
    lab.wait_until_sent()
    paused.process.send_signal(signal.SIGCONT)
    paused.terminate()
    paused.wait()

    lab.finish()


def _marks(lab: Lab, before: int) -> bool:
    try:
        wait_until(lambda: lab.sent() > before, 2, "a mark")
    except AssertionError:
        return False
    return True


def _published(relay: Relay) -> bool:
    return "outbox_published_total{" in relay.metrics()
