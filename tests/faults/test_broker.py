"""Faults 9, 10 and 12 to 16: a broker that dies or freezes, and the network before it.

Each of them on RabbitMQ and on Valkey.
"""

from pathlib import Path

import pytest

from tests.faults.evidence import is_alive
from tests.faults.lab import DEADLINE, Lab
from tests.faults.queues import through
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until

#: Longer than a server takes to start: what is to be found out is not that confirms are late.
PATIENT = "60s"


@pytest.mark.smoke
@pytest.mark.fault(9)
def test_killed(mortal_lab: Lab) -> None:
    """SIGKILL with a window of messages whose confirms are still on their way."""
    lab, server = mortal_lab, mortal_lab.queue.server
    relay = lab.relay(OUTBOX_CONFIRM_TIMEOUT=PATIENT)
    before = server.process.pid
    with lab.fault(lambda: relay.events("broker_lost") and server.process.pid != before):
        lab.fill_the_window()
        server.kill()
        lab.to_broker.heal()
        relay.wait_for_event("broker_lost")
        lab.commit(100)
        server.start()

    lab.finish()
    assert_terse(relay)


@pytest.mark.fault(9)
def test_killed_twice(mortal_lab: Lab) -> None:
    """Twice in a row, with producers that go on."""
    lab, server = mortal_lab, mortal_lab.queue.server
    relay = lab.relay()
    with lab.producer():
        for _ in range(2):
            lab.under_way(300)
            with lab.fault(lambda: relay.events("broker_lost")):
                server.kill()
                wait_until(lambda: not relay.ready(), DEADLINE, "a relay that is not ready")
                server.start()

    lab.finish()


@pytest.mark.fault(10)
def test_frozen(mortal_lab: Lab) -> None:
    """SIGSTOP: no confirm by the deadline; alive all the while, and not ready."""
    lab = mortal_lab
    relay = lab.relay()
    lab.under_way()
    with lab.fault(lambda: relay.events("broker_lost")), lab.queue.server.frozen():
        lab.commit(500)
        relay.wait_for_event("broker_lost")
        wait_until(lambda: not relay.ready(), DEADLINE, "a relay that is not ready")
        assert is_alive(relay)

    lab.finish()


@pytest.mark.fault(12)
def test_refused(broker_lab: Lab) -> None:
    """Cut off, and nobody listens any more: a line in the log, not one for each attempt."""
    lab = broker_lab
    relay = lab.relay()
    with lab.producer():
        lab.under_way(300)
        with lab.fault(lambda: lab.to_broker.evidence["refused"] and relay.events("broker_lost")):
            lab.to_broker.refuse()
            relay.wait_for_event("broker_lost")
            wait_until(lambda: not relay.ready(), DEADLINE, "a relay that is not ready")
        lab.to_broker.heal()

    lab.finish()
    assert_terse(relay)


@pytest.mark.fault(12)
def test_its_name_is_gone(broker_lab: Lab, tmp_path: Path) -> None:
    """A host name that nobody knows is waited out; the file it stands in is read again."""
    lab, file = broker_lab, tmp_path / "url"
    url = through(lab.queue.url, lab.to_broker.port)
    file.write_text(url.replace("127.0.0.1", "nowhere.invalid"))
    relay = lab.relay(wait=False, OUTBOX_BROKER_URL="", OUTBOX_BROKER_URL_FILE=str(file))
    lab.commit(100)
    with lab.fault(lambda: relay.events("broker_lost")):
        relay.wait_for_event("broker_lost")
    file.write_text(url)

    lab.finish(duplicates=0)


@pytest.mark.fault(13)
def test_half_open(broker_lab: Lab) -> None:
    """Bytes vanish both ways and no end is told: the confirm's deadline finds out."""
    lab = broker_lab
    relay = lab.relay()
    lab.under_way()
    with lab.fault(lambda: lab.to_broker.evidence["dropped"] > 0):
        lab.to_broker.drop()
        lab.commit(500)
        relay.wait_for_event("broker_lost")
        assert is_alive(relay)
    lab.to_broker.heal()

    lab.finish()


@pytest.mark.fault(14)
def test_sliced(broker_lab: Lab) -> None:
    """A byte at a time, both ways: slower, and nothing else."""
    lab = broker_lab
    relay = lab.relay(OUTBOX_CONFIRM_TIMEOUT=PATIENT)
    lab.under_way(1)
    with lab.fault(lambda: lab.to_broker.evidence["sliced"] > 1000):
        lab.to_broker.slice(1)
        lab.commit(50)
        lab.wait_until_sent()
    lab.to_broker.heal()

    lab.finish(duplicates=0)
    assert not relay.events("broker_lost")


@pytest.mark.fault(14)
def test_slow(broker_lab: Lab) -> None:
    """10 kB a second: the connection is kept, and so is its heartbeat."""
    lab = broker_lab
    relay = lab.relay(OUTBOX_CONFIRM_TIMEOUT=PATIENT)
    lab.under_way(1)
    with lab.fault(lambda: lab.to_broker.evidence["throttled"] > 1000):
        lab.to_broker.throttle(10_000)
        lab.commit(100)
        lab.wait_until_sent()
    lab.to_broker.heal()

    lab.finish(duplicates=0)
    assert not relay.events("broker_lost")


@pytest.mark.fault(15)
@pytest.mark.parametrize(("way", "size"), [("up", 5_003), ("up", 20_011), ("down", 101)])
def test_reset_in_mid_frame(broker_lab: Lab, way: str, size: int) -> None:
    """RST after so many bytes: what was not confirmed is sent again."""
    lab = broker_lab
    relay = lab.relay()
    lab.under_way(1)
    with lab.fault(lambda: lab.to_broker.evidence["reset"] and relay.events("broker_lost")):
        lab.to_broker.reset_after(size, "up" if way == "up" else "down")
        lab.commit(1000)
        relay.wait_for_event("broker_lost")

    lab.finish()


@pytest.mark.smoke
@pytest.mark.fault(16)
def test_a_late_confirm(broker_lab: Lab) -> None:
    """Held beyond the deadline, then let go: it settles nobody else's message."""
    lab = broker_lab
    relay = lab.relay()
    with lab.fault(lambda: "no confirm" in relay.events("broker_lost")[0]["reason"]):
        lab.fill_the_window()
        relay.wait_for_event("broker_lost")
    lab.to_broker.heal()

    lab.finish()


def assert_terse(relay: Relay) -> None:
    """One line says that it is lost, however many attempts fail."""
    assert 0 < len(relay.events("broker_lost")) <= 3
