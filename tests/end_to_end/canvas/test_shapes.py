"""Each shape comes to what plain Celery makes of it, through outbox, relay and worker.

CANVAS_SEED=n draws other random shapes than by default, and draws them again.
"""

import os

import psycopg
import pytest

from tests.end_to_end.canvas.catalogue import CATALOGUE
from tests.end_to_end.canvas.changes import CHANGES
from tests.end_to_end.canvas.conftest import Stage
from tests.end_to_end.canvas.grammar import random_shapes
from tests.end_to_end.canvas.line import Line, differing
from tests.end_to_end.canvas.outcome import Outcome
from tests.end_to_end.canvas.shape import Shape

#: Plain Celery is not of one mind about some shapes: how often they are played to see that.
TURNS = 4


@pytest.mark.timeout(300)
def test_the_catalogue(stage: Stage) -> None:
    """The same results and states, the same tasks with the same arguments and stamps, each once.

    The worker stores what follows a task, or sends it to the broker as it has no database; or its
    tasks run in transactions, which a retry rolls back. What was rolled back leaves no trace.
    """
    nothing = stage.stored.play_and_roll_back(CATALOGUE)
    with psycopg.connect(stage.stored.database) as connection:
        assert connection.execute("SELECT count(*) FROM outbox.message").fetchone() == (0,)
    running = [line.play(CATALOGUE) for line in (stage.plain, stage.stored, stage.direct)]
    running.append(stage.within.play(CHANGES))
    plain, *seen = [each.outcomes() for each in running]

    mistaken = [
        f"{name}: {plain[name].value!r}, {plain[name].labels!r}, not {shape.value!r}, {shape.ran!r}"
        for name, shape in CATALOGUE.items()
        if (plain[name].value, plain[name].labels) != (shape.value, shape.ran)
    ]
    assert "\n".join(mistaken) == ""
    for line, outcomes in zip((stage.stored, stage.direct, stage.within), seen, strict=True):
        assert "\n".join(differing(plain, outcomes)) == "", line.name
    assert [name for name in CATALOGUE if nothing.notes(name)] == []


@pytest.mark.parametrize("number", [40, pytest.param(400, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
def test_random_shapes(stage: Stage, number: int) -> None:
    """Results, states, tasks, arguments and stamps are the same, and each task runs as often."""
    shapes = random_shapes(int(os.environ.get("CANVAS_SEED", "1")), number)
    running = [line.play(shapes) for line in (stage.plain, *stage.ours)]
    plain, *ours = [each.outcomes() for each in running]
    doubtful = {
        name: shape
        for name, shape in shapes.items()
        if any(seen[name] != plain[name] for seen in ours)
    }
    usual = {name: [plain[name]] for name in doubtful}
    for outcomes in _again(stage.plain, doubtful):
        for name in doubtful:
            usual[name].append(outcomes[name])

    wrong = [
        f"{line.name}: {name}: plain {usual[name]}, here {seen[name]}"
        for name in doubtful
        for line, seen in zip(stage.ours, ours, strict=True)
        if seen[name] not in usual[name]
    ]
    assert "\n".join(wrong) == ""


def _again(line: Line, shapes: dict[str, Shape]) -> list[dict[str, Outcome]]:
    """Play shapes several times, each by itself among few others."""
    return [
        {name: line.play({name: shape}).outcomes()[name] for name, shape in shapes.items()}
        for _ in range(TURNS if shapes else 0)
    ]
