"""What the doorbell costs producers: commits a second of eight connections, in three ways.

*without*: a schema without the doorbell. *awake*: no relay sleeps, as under load.
*asleep*: one sleeps and is never woken, so that every commit rings, as none does for long.
"""

from collections.abc import Callable, Mapping
from typing import Final

from bench.instruments.commits import CONNECTIONS, commit, committers
from bench.lab import Lab
from bench.load import messages

#: Turns that each way takes, with so many commits on each connection.
TURNS: Final = 5

RING: Final = "PERFORM ring();"
MAKE_WORK: Final = "SELECT pg_get_functiondef('outbox.make_work'::regproc)"
SLEEP: Final = "SELECT pg_advisory_lock(bell) FROM outbox.bell()"
WAKE: Final = "SELECT pg_advisory_unlock(bell) FROM outbox.bell()"


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Commits a second by way, in turns."""
    messages.reset(lab)
    rung: str = lab.value(MAKE_WORK)
    assert RING in rung
    spent: dict[str, float] = {}
    ways: dict[str, Callable[[], None]] = {
        "without": lambda: _define(lab, rung.replace(RING, "")),
        "awake": lambda: _define(lab, rung),
        "asleep": lambda: _define(lab, rung),
    }
    try:
        with committers(lab) as connections:
            for turn in range(TURNS + 1):  # the first warms everything, and does not count
                for name, prepare in ways.items():
                    prepare()
                    if name == "asleep":
                        lab.admin.execute(SLEEP.encode())
                    seconds = commit(connections, lab.scale.commits)
                    if name == "asleep":
                        lab.admin.execute(WAKE.encode())
                    spent[name] = spent.get(name, 0.0) + (seconds if turn else 0.0)
    finally:
        _define(lab, rung)
        messages.reset(lab)
    made = TURNS * CONNECTIONS * lab.scale.commits
    return {name: {"rate": made / seconds} for name, seconds in spent.items()}


def _define(lab: Lab, function: str) -> None:
    lab.admin.execute(function.encode())
