"""Relays that die while canvases are on their way: with an inbox each task still has one effect."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from servers import Valkey
from tests.end_to_end.canvas.apps import Plan
from tests.end_to_end.canvas.changes import REPLACED
from tests.end_to_end.canvas.line import REST_SECONDS, Line, sender, start_relay, start_worker
from tests.end_to_end.canvas.successes import SUCCESSES
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until

#: Shapes in which nothing is raised: what is delivered again would raise again, and be noted again.
SHAPES = {
    **SUCCESSES,
    **{name: shape for name, shape in REPLACED.items() if "retries" not in name},
}
#: A relay dies each time so many more rows were sent.
ROWS_BETWEEN_DEATHS = 60
DEATHS = 4


@dataclass(slots=True)
class Mortal:
    """A line whose relay dies and has a successor."""

    line: Line
    start: Callable[[], Relay]
    relay: Relay

    def die_after(self, rows: int) -> None:
        """SIGKILL the relay once it has sent so many rows, and start another one."""
        wait_until(lambda: self.sent() >= rows, REST_SECONDS, f"{rows} rows to be sent")
        self.relay.kill()
        self.relay = self.start()

    def sent(self) -> int:
        """How many rows were sent so far."""
        return self._count("SELECT count(*) FROM outbox.sent")

    def waiting(self) -> int:
        """How many were not."""
        pending, scheduled = (
            f"(SELECT count(*) FROM outbox.{s})" for s in ("pending", "scheduled")
        )
        return self._count(f"SELECT {pending} + {scheduled}")

    def _count(self, query: str) -> int:
        with psycopg.connect(self.line.database) as connection:
            [(count,)] = connection.execute(query.encode()).fetchall()
            return int(count)


@pytest.fixture
def mortal(
    broker_of_its_own: Callable[[], str], results_server: Valkey, database: str, tmp_path: Path
) -> Iterator[Mortal]:
    """A worker with outbox and inbox, and a relay."""
    name, redis = f"killed-{uuid4().hex[:8]}", results_server.url
    plan = Plan(
        name,
        redis,
        redis,
        broker_of_its_own(),
        outbox=True,
        around="an inbox",
        database=database,
    )
    worker = start_worker(plan, tmp_path, database=database)
    mortal = Mortal(
        sender(plan, database),
        lambda: start_relay(plan, tmp_path, database),
        start_relay(plan, tmp_path, database),
    )
    try:
        worker.wait_for_output(" ready.")
        yield mortal
    finally:
        mortal.line.close()
        mortal.relay.kill()
        worker.kill()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_every_shape_comes_to_its_end(mortal: Mortal) -> None:
    """Whatever was published twice, results are right and each task had its effect once."""
    running = mortal.line.play(SHAPES)
    for death in range(1, DEATHS + 1):
        mortal.die_after(death * ROWS_BETWEEN_DEATHS)

    def labels(name: str) -> str:
        return " ".join(sorted(note.label for note in running.notes(name)))

    def unfinished() -> list[str]:
        return [name for name, shape in SHAPES.items() if len(labels(name)) < len(shape.ran)]

    wait_until(lambda: not unfinished(), REST_SECONDS, "every task to have run")
    wait_until(lambda: not mortal.waiting(), REST_SECONDS, "every row to be sent")
    seen = {name: (each.value, each.labels) for name, each in running.outcomes().items()}

    assert seen == {name: (shape.value, shape.ran) for name, shape in SHAPES.items()}
