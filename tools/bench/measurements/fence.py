"""What the fence costs: drains and latencies beside a standby, with and without OUTBOX_FENCE.

The standby shares the machine, and copies all the same without a fence: only the waiting differs.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from bench.lab import Lab
from bench.load.queues import QUORUM
from bench.measurements import latency, rabbit
from servers import Standby

#: Messages a second at which latencies are measured.
RATE: Final = 50


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Both ways, one after the other."""
    found: dict[str, Mapping[str, float]] = {}
    with ExitStack() as stack:
        standby = Standby(lab.folder / "standby", lab.postgres)
        stack.callback(standby.discard)
        standby.start()
        for name, fence in (("no fence", "off"), ("fenced", "standby:1")):
            run = rabbit.measure(lab, QUORUM, 1, lab.scale.fast_queue, 1, fence)
            found[f"{name}, 1 quorum queue, 1 process"] = run.values()
            for what, values in latency.measure(lab, RATE, "auto", fence).items():
                found[f"{name}, latency at {RATE}/s, {what}"] = values
    return found
