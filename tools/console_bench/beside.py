"""What a relay and producers notice of people who watch the console, on private servers.

With nobody and with so many who watch, in turns: a relay drains a backlog into a quorum queue of
RabbitMQ, and eight connections commit one message each time. A machine drifts by more than what is
looked for: the two of a round are compared, and the median of these ratios is what counts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench import commits, messages, queues
from bench.drain import Target, drain
from bench.lab import Lab, opened
from bench.queues import QUORUM
from bench.scale import SCALES
from console_bench.serving import served
from console_bench.viewing import watched
from outbox_migrations import grant

#: Messages that a relay drains in one turn, and commits of each connection.
DRAINED: Final = 150_000
COMMITTED: Final = 4_000

Turn = Callable[[Lab, int, Path], float]


def beside(count: int, rounds: int, folder: Path) -> None:
    """Print both rates with nobody and with so many watching, and how the rounds compare."""
    with opened(SCALES["full"], folder) as lab:
        grant(lab.database_url)
        print(f"{'a second':28}{'nobody':>10}{f'{count} watch':>10}   of it, median and quartiles")
        for name, turn in (("a relay confirms", _drained), ("producers commit", _committed)):
            found = _taken(lab, turn, count, rounds, folder)
            nobody, many = (median(side) for side in zip(*found, strict=True))
            low, middle, high = quantiles([with_ / without for without, with_ in found], n=4)
            print(
                f"{name:28}{nobody:10,.0f}{many:10,.0f}"
                f"   {middle:.1%} ({low:.1%} to {high:.1%} in {rounds} rounds)",
                flush=True,
            )


def _taken(
    lab: Lab, turn: Turn, count: int, rounds: int, folder: Path
) -> list[tuple[float, float]]:
    """The rates of each round, with nobody and with those who watch."""
    turn(lab, 0, folder)  # warms everything, and does not count
    found = []
    for round_ in range(rounds):
        # Whoever is second has the warmer machine: they take turns at that, too.
        order = (0, count) if round_ % 2 else (count, 0)
        rates = {watching: turn(lab, watching, folder) for watching in order}
        found.append((rates[0], rates[count]))
    return found


def _drained(lab: Lab, watching: int, folder: Path) -> float:
    node = lab.require_rabbitmq()
    routes = queues.fresh(node.url(), QUORUM)
    messages.refill(lab, DRAINED, routes)
    with _looked_at(lab, watching, folder):
        run = drain(lab, Target((node.url(),), (node.process.pid,)), DRAINED)
    queues.await_depth(node.url(), routes, DRAINED)
    queues.delete(node.url(), routes)
    return run.messages / run.seconds


def _committed(lab: Lab, watching: int, folder: Path) -> float:
    messages.reset(lab)
    lab.admin.execute(commits.COMMITS.encode())
    with _looked_at(lab, watching, folder), commits.connections(lab) as opened_:
        return len(opened_) * COMMITTED / commits.commit(opened_, COMMITTED)


@contextmanager
def _looked_at(lab: Lab, watching: int, folder: Path) -> Iterator[None]:
    """With nobody who watches there is no console either."""
    if not watching:
        yield
        return
    with served(lab.database_url, folder) as console, watched(console.address, watching):
        yield
