"""What a relay and producers notice of people who watch the console, on private servers.

With nobody and with so many who watch, in turns: a relay drains a backlog into a quorum queue of
RabbitMQ, and eight connections commit one message each time. A machine drifts by more than what is
looked for: the two of a round are compared, and the median of these ratios is what counts. Beside
the rates stands the CPU time that a message takes, of relay, Postgres, broker and console: on a
busy machine it is the steadier of the two, and on a full one the rate goes by it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench.instruments import commits
from bench.instruments.drain import Target, drain
from bench.lab import Lab, opened
from bench.load import messages, queues
from bench.load.queues import QUORUM
from bench.scale import SCALES
from console_bench.serving import Served, served
from console_bench.viewing import watched
from outbox_migrations import grant

#: Messages that a relay drains in one turn, and commits of each connection.
DRAINED: Final = 60_000
COMMITTED: Final = 2_000

#: What a turn has found, by what it is called.
Values = Mapping[str, float]
Turn = Callable[[Lab, int, Path], Values]


def beside(count: int, rounds: int, folder: Path) -> None:
    """Print what was measured with nobody and with so many watching, and how rounds compare."""
    with opened(SCALES["full"], folder) as lab:
        grant(lab.database_url)
        print(f"{'':28}{'nobody':>10}{f'{count} watch':>10}   of it: median and quartiles")
        for turn in (_drained, _committed):
            _tell(_rounds(lab, turn, count, rounds), rounds)


def _tell(found: list[tuple[Values, Values]], rounds: int) -> None:
    for name in found[0][0]:
        nobody, many = ([values[name] for values in side] for side in zip(*found, strict=True))
        ratios = [b / a for a, b in zip(nobody, many, strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        print(
            f"{name:28}{median(nobody):10,.0f}{median(many):10,.0f}"
            f"   {middle:.1%} ({low:.1%} to {high:.1%} in {rounds} rounds)",
            flush=True,
        )


def _rounds(lab: Lab, turn: Turn, count: int, rounds: int) -> list[tuple[Values, Values]]:
    """What each round has found, with nobody and with those who watch."""
    folder = lab.folder
    turn(lab, 0, folder)  # warms everything, and does not count
    found = []
    for round_ in range(rounds):
        # Whoever is second has the warmer machine: they take turns at that, too.
        order = (0, count) if round_ % 2 else (count, 0)
        values = {watching: turn(lab, watching, folder) for watching in order}
        found.append((values[0], values[count]))
    return found


def _drained(lab: Lab, watching: int, folder: Path) -> Values:
    node = lab.require_rabbitmq()
    routes = queues.fresh(node.url(), QUORUM)
    messages.refill(lab, DRAINED, routes)
    with _looked_at(lab, watching, folder) as console:
        pids = (node.process.pid, *([console.pid] if console else ()))
        run = drain(lab, Target((node.url(),), pids), DRAINED)
    queues.await_depth(node.url(), routes, DRAINED)
    queues.delete(node.url(), routes)
    return {
        "a relay confirms, /s": run.messages / run.seconds,
        "CPU of a message, µs": 1e6 * sum(run.cpu.values()) / run.messages,
    }


def _committed(lab: Lab, watching: int, folder: Path) -> Values:
    messages.reset(lab)
    with _looked_at(lab, watching, folder), commits.committers(lab) as connections:
        seconds = commits.commit(connections, COMMITTED)
        return {"producers commit, /s": len(connections) * COMMITTED / seconds}


@contextmanager
def _looked_at(lab: Lab, watching: int, folder: Path) -> Iterator[Served | None]:
    """With nobody who watches there is no console either."""
    if not watching:
        yield None
        return
    with served(lab.database_url, folder) as console, watched(console.address, watching):
        yield console
