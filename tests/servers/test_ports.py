"""Ports for servers: no two processes are given the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from servers import ports

TOOLS = Path(ports.__file__).parents[1]
OFFERED = 4
#: Takes all it is offered, and keeps them until it is told to end.
TAKER = f"""
from servers import ports
ports._PORTS = range({{start}}, {{start}} + {OFFERED}); ports._ATTEMPTS = {OFFERED}
print(*(ports.free_port() for _ in range({OFFERED})), flush=True); input()
"""


@pytest.fixture
def start() -> int:
    """Where free ports lie side by side, below those that anybody is given."""
    below = range(ports._PORTS.start - 1000, ports._PORTS.start, OFFERED)
    return next(
        start for start in below if not any(ports.is_taken(start + n) for n in range(OFFERED))
    )


def test_a_port_is_given_once_while_its_process_lives(
    start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nobody listens there yet."""
    monkeypatch.setattr(ports, "_PORTS", range(start, start + OFFERED))
    monkeypatch.setattr(ports, "_ATTEMPTS", OFFERED)
    monkeypatch.setattr(ports, "_given", type(ports._given)())
    with subprocess.Popen(
        [sys.executable, "-c", TAKER.format(start=start)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(TOOLS)},
        text=True,
    ) as taker:
        assert taker.stdout is not None  # it was asked for
        assert {*map(int, taker.stdout.readline().split())} == {*range(start, start + OFFERED)}
        with pytest.raises(OSError, match="none free"):
            ports.free_port()
        taker.communicate("\n")

    assert {ports.free_port() for _ in range(OFFERED)} == {*range(start, start + OFFERED)}
    for port in range(start, start + OFFERED):
        ports._unlock(port)


def test_a_process_keeps_those_it_was_given_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a long run does not take all there are."""
    monkeypatch.setattr(ports, "_KEPT", 2)
    monkeypatch.setattr(ports, "_given", type(ports._given)())

    first, second, third = (ports.free_port() for _ in range(3))

    assert [*ports._given] == [second, third]
    assert first not in ports._given
