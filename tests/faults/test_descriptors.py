"""The relay may open no more files: it waits, and goes on once it may."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from tests.faults.lab import Lab
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until

#: Standard input, output and error. What is open beyond it stays open, and poll() needs two.
TAKEN = 3


@contextmanager
def no_more_files(relay: Relay) -> Iterator[None]:
    """As where `ulimit -n` is too low, or something else in the container has taken all."""
    pid = relay.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (TAKEN, usual[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def cpu_seconds(relay: Relay) -> float:
    """What the relay's process has used so far."""
    fields = Path(f"/proc/{relay.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.smoke
@pytest.mark.parametrize("away", ["broker", "database"])
def test_no_file_descriptor_is_left(lab: Lab, away: str) -> None:
    """A connection is lost and none can be opened: an outage like any other, at no attempt."""
    relay = lab.relay()
    lab.under_way(100)
    lab.wait_until_sent()
    way = lab.to_broker if away == "broker" else lab.to_database
    with lab.fault(lambda: relay.events(f"{away}_lost")), no_more_files(relay):
        way.reset()
        lab.commit(50)
        before, began = cpu_seconds(relay), monotonic()
        wait_until(lambda: relay.events(f"{away}_lost"), 20, "the loss")
        wait_until(lambda: monotonic() - began > 5, 10, "a while")
        assert relay.process.poll() is None, relay.output()
        assert cpu_seconds(relay) - before < 3, relay.output()

    lab.wait_until_sent()
    assert lab.attempts() == 0
    lab.finish()
