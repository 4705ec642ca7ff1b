"""Many tasks in one transaction: `send_many` against a loop of `.delay()`, in time and memory.

The ways take turns. For its memory each runs in a process of its own, whose transaction is rolled
back: what counts is by how much that grew after its first sends.
"""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any, Final

import psycopg

from bench.lab import Lab, Unbelievable
from bench.load import messages
from bench.load.tasks import ARGUMENTS, outbox_app

#: Turns that each way takes.
TURNS: Final = 3
#: Sends before memory is read for the first time: by then everything is imported and prepared.
WARM_UP: Final = 2000
MEMORY_SECONDS: Final = 1800

Call = tuple[tuple[object, ...], dict[str, object]]


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Tasks a second by way, and the memory of a loop in megabytes."""
    messages.reset(lab)
    app, task = outbox_app("many")
    spent = {"a loop of .delay()": 0.0, "send_many": 0.0}
    ways: dict[str, Callable[[], object]] = {
        "a loop of .delay()": lambda: _loop(task, lab.scale.many),
        "send_many": lambda: app.outbox.send_many(task, _calls(lab.scale.many)),
    }
    with psycopg.connect(lab.database_url) as connection:
        for turn in range(TURNS + 1):  # the first warms everything, and does not count
            for name, way in ways.items():
                began = perf_counter()
                with app.outbox.transaction(connection):
                    way()
                spent[name] += (perf_counter() - began) if turn else 0.0
                messages.reset(lab)
    made = TURNS * lab.scale.many
    rates = {name: {"rate": made / seconds} for name, seconds in spent.items()}
    return {**rates, **{f"{way}, memory": {"size": _grown(lab, way)} for way in spent}}


def _grown(lab: Lab, way: str) -> float:
    command = [sys.executable, "-m", __name__, lab.database_url, way, str(lab.scale.remembered)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=MEMORY_SECONDS)
    if ran.returncode:
        raise Unbelievable(f"the process whose memory was to be read failed: {ran.stderr[-500:]}")
    return float(ran.stdout)


def _calls(count: int) -> Iterator[Call]:
    for _ in range(count):
        yield ARGUMENTS.positional, ARGUMENTS.named


def _loop(task: Any, count: int) -> None:
    for _ in range(count):
        task.delay(*ARGUMENTS.positional, **ARGUMENTS.named)


def _memory() -> float:
    """The most this process has had so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(url: str, way: str, count: int) -> None:
    """Send, roll back, and print by how many megabytes this process grew."""
    app, task = outbox_app("many")
    with psycopg.connect(url) as connection:
        with app.outbox.using(connection):
            for sends in (WARM_UP, count):
                before = _memory()
                if way == "send_many":
                    app.outbox.send_many(task, _calls(sends))
                else:
                    _loop(task, sends)
        grown = _memory() - before
        connection.rollback()
    print(grown)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
