"""Random shapes: chains, groups and chords of what may fail, retry, be replaced, linked or stamped.

A tree says what a shape is, and prints as what one could type to make it again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Final

from celery import chain, chord, group

from tests.end_to_end.canvas.shape import Shape
from tests.end_to_end.canvas.steps import Steps

#: How deep canvases are put in one another.
DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class Tree:
    """A canvas, or a task, and what it is made of."""

    kind: str
    parts: tuple["Tree", ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(map(str, self.parts))})" if self.parts else self.kind


#: Tasks by how often they are drawn: of many that fail one would see little else.
TASKS: Final = {"step": 12, "alone": 2, "stumble": 2, "fail": 1, "become": 3}
#: Canvases, and what is put on them.
CANVASES: Final = {"chain": 6, "group": 5, "chord": 5, "link": 2, "told": 2, "heard": 1, "stamp": 2}


def random_shapes(seed: int, number: int) -> dict[str, Shape]:
    """Return shapes by their trees, the same ones for the same seed."""
    random = Random(seed)
    trees = {str(tree): tree for tree in (_tree(random, DEPTH) for _ in range(number))}
    return {name: Shape(_maker(tree), None, "") for name, tree in trees.items()}


def _maker(tree: Tree) -> Any:
    return lambda steps: _made(tree, steps, count())


def _drawn(random: Random, weights: dict[str, int]) -> str:
    return random.choices(list(weights), list(weights.values()))[0]


def _tree(random: Random, depth: int) -> Tree:
    if depth == 0 or random.random() < 0.1:
        return _task(random, depth)
    kind = _drawn(random, CANVASES)
    number = random.randint(2, 3) if kind in ("chain", "group", "chord") else 1
    # Down to a task at once, half of the time: else each shape would be as deep as it may be.
    parts = (_tree(random, random.choice((0, depth - 1))) for _ in range(number))
    return Tree(kind, tuple(parts))


def _task(random: Random, depth: int) -> Tree:
    kind = _drawn(random, TASKS)
    parts = (_tree(random, max(0, depth - 2)),) if kind == "become" and depth else ()
    return Tree("step" if kind == "become" and not parts else kind, parts)


def _made(tree: Tree, s: Steps, numbers: Iterator[int]) -> Any:
    """Return the canvas of a tree, each task labelled by its place in it."""
    number = next(numbers)
    label, plus = f"t{number}", 1 << number
    parts = [_made(part, s, numbers) for part in tree.parts]
    match tree.kind:
        case "step":
            return s(label, plus)
        case "alone":
            return s.alone(label, plus)
        case "stumble":
            return s.stumbles(label, plus, times=1)
        case "fail":
            return s.fails(label)
        case "become":
            return s.becomes(label, parts[0])
        case "chain":
            return chain(*parts)
        case "group":
            return group(*parts)
        case "chord":
            *header, body = parts
            return chord(header, body)
    return _with(tree.kind, parts[0], s, label)


def _with(kind: str, canvas: Any, s: Steps, label: str) -> Any:
    """Return the canvas with something put on it."""
    match kind:
        case "link":
            canvas.link(s(label))
        case "told":
            canvas.link_error(s.told(label))
        case "heard":
            canvas.link_error(s.heard(label))
        case "stamp":
            canvas.stamp(mark=label)
    return canvas
