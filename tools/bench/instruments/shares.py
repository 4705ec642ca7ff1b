"""What relays and Postgres take of a core while time passes."""

from collections.abc import Sequence
from time import monotonic, sleep

from bench.instruments import cpu
from bench.instruments.postgres import transactions
from bench.lab import Lab


def shares(lab: Lab, relays: Sequence[int], seconds: float) -> dict[str, dict[str, float]]:
    """Wait so long; per cent of a core, of the relays by their process ids; transactions."""
    began, already = monotonic(), transactions(lab)
    before = cpu.spent(*relays), cpu.spent(lab.postgres.process.pid)
    sleep(seconds)
    took = monotonic() - began
    relay = cpu.spent(*relays) - before[0]
    postgres = cpu.spent(lab.postgres.process.pid) - before[1]
    return {
        "relay": {"share": 100 * relay / took},
        "Postgres": {"share": 100 * postgres / took},
        "statements": {"rate": (transactions(lab) - already) / took},
    }
