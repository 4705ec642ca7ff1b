"""Shapes in which a task fails, and what is told of it."""

from typing import Any, Final

from celery import chain, chord, group

from tests.end_to_end.canvas.outcome import PENDING
from tests.end_to_end.canvas.shape import Shape

FAILED: Final = "ValueError('f')"
CHORD_FAILED: Final = "ChordError(\"Dependency <f> raised ValueError('f')\")"

#: The same, of a member that is a chain: its last task, which was not sent.
NEVER_RAN: Final = CHORD_FAILED.replace("<f>", "<?>")


def _on_error(canvas: Any, *errbacks: Any) -> Any:
    for errback in errbacks:
        canvas.link_error(errback)
    return canvas


TASKS: Final[dict[str, Shape]] = {
    "a task fails": Shape(lambda s: s.fails("f"), FAILED, "f"),
    "its errback is a message": Shape(
        lambda s: _on_error(s.fails("f"), s.told("x")), FAILED, "f x"
    ),
    "its errback is a call": Shape(lambda s: _on_error(s.fails("f"), s.heard("x")), FAILED, "f x"),
    "it has several errbacks": Shape(
        lambda s: _on_error(s.fails("f"), s.told("x"), s.heard("y"), s.told("z")), FAILED, "f x y z"
    ),
    "its errback is a chain": Shape(
        lambda s: _on_error(s.fails("f"), s.alone("x", 1) | s("y", 2)), FAILED, "f x y"
    ),
    "its errback is a group": Shape(
        lambda s: _on_error(s.fails("f"), group(s.alone("x"), s.alone("y") | s("z"))),
        FAILED,
        "f x y z",
    ),
    "its errback is a chord": Shape(
        lambda s: _on_error(s.fails("f"), chord([s.alone("x"), s.alone("y")], s("z"))),
        FAILED,
        "f x y z",
    ),
    "its errback retries itself": Shape(
        lambda s: _on_error(s.fails("f"), s.stumbles("x", 1, times=2)), FAILED, "f x x x"
    ),
    "its errback fails and has one": Shape(
        lambda s: _on_error(s.fails("f"), _on_error(s.fails("x"), s.told("y"))), FAILED, "f x y"
    ),
    "its link is left out": Shape(
        lambda s: s.fails("f").set(link=[s("n")], link_error=[s.told("x")]), FAILED, "f x"
    ),
}

CHAINS: Final[dict[str, Shape]] = {
    "the first step of a chain fails": Shape(lambda s: s.fails("f") | s("n") | s("n"), FAILED, "f"),
    "the last step of a chain fails": Shape(lambda s: s("a", 1) | s.fails("f"), FAILED, "a f"),
    "the errback of a chain, the first fails": Shape(
        lambda s: _on_error(s.fails("f") | s("n"), s.told("x")), FAILED, "f x"
    ),
    "the errback of a chain, the last fails": Shape(
        lambda s: _on_error(s("a", 1) | s("b", 2) | s.fails("f"), s.told("x"), s.heard("y")),
        FAILED,
        "a b f x y",
    ),
    "the errback of one step": Shape(
        lambda s: s("a", 1) | _on_error(s.fails("f"), s.told("x")) | s("n"), FAILED, "a f x"
    ),
    "the errback of a chain in a chain": Shape(
        lambda s: chain(s("a", 1), _on_error(s("b", 2) | s.fails("f"), s.told("x"))),
        FAILED,
        "a b f x",
    ),
    "a link fails": Shape(
        lambda s: s("a", 1).set(link=[_on_error(s.fails("f"), s.told("x"))]), 1, "a f x"
    ),
}

GROUPS: Final[dict[str, Shape]] = {
    "a member of a group fails": Shape(
        lambda s: group(s("a", 1), s.fails("f"), s("b", 2)), [1, FAILED, 2], "a b f"
    ),
    "the errback of a group": Shape(
        lambda s: _on_error(group(s("a", 1), s.fails("f")), s.told("x")), [1, FAILED], "a f x"
    ),
    "the errback of a group, two fail": Shape(
        lambda s: _on_error(group(s.fails("f"), s.fails("f")), s.told("x"), s.heard("y")),
        [FAILED, FAILED],
        "f f x x y y",
    ),
    "a group that ends a chain, one fails": Shape(
        lambda s: _on_error(s("a", 1) | group(s("b", 2), s.fails("f")), s.told("x")),
        [3, FAILED],
        "a b f x",
    ),
}

CHORDS: Final[dict[str, Shape]] = {
    "a header fails": Shape(
        lambda s: chord([s("a", 1), s.fails("f")], s("n")), CHORD_FAILED, "a f"
    ),
    "a header fails, and the body has errbacks": Shape(
        lambda s: chord([s("a", 1), s.fails("f")], _on_error(s("n"), s.told("x"), s.heard("y"))),
        CHORD_FAILED,
        "a f x y",
    ),
    "a header fails, and the chord has an errback": Shape(
        lambda s: _on_error(chord([s("a", 1), s.fails("f")], s("n")), s.told("x")),
        CHORD_FAILED,
        "a f x",
    ),
    "a body fails": Shape(
        lambda s: chord([s("a", 1), s("b", 2)], _on_error(s.fails("f"), s.told("x"))),
        FAILED,
        "a b f x",
    ),
    "a body fails, which is a chain": Shape(
        lambda s: chord([s("a", 1)], _on_error(s("b", 2) | s.fails("f"), s.told("x"))),
        FAILED,
        "a b f x",
    ),
    "a chain in a header fails at its start": Shape(
        lambda s: chord([s.fails("f") | s("n"), s("a", 1)], _on_error(s("n"), s.told("x"))),
        NEVER_RAN,
        "a f x",
    ),
    "a chain in a header fails at its end": Shape(
        lambda s: chord([s("a", 1) | s.fails("f"), s("b", 2)], _on_error(s("n"), s.told("x"))),
        CHORD_FAILED,
        "a b f x",
    ),
    "a group in a header fails": Shape(
        lambda s: chord(
            [group(s("a", 1), s.fails("f")), s("b", 2)], _on_error(s("n"), s.told("x"))
        ),
        CHORD_FAILED,
        "a b f x",
    ),
    "a header fails whose body is a group": Shape(
        lambda s: chord([s("a", 1), s.fails("f")], group(s("n"), s("n"))),
        [FAILED, FAILED],
        "a f",
    ),
    "a header fails in a chain": Shape(
        lambda s: _on_error(
            chain(s("a", 1), chord([s("b", 2), s.fails("f")], s("n")), s("n")), s.told("x")
        ),
        CHORD_FAILED,
        "a b f x",
    ),
    "a group fails that a task follows": Shape(
        lambda s: _on_error(group(s("a", 1), s.fails("f")) | s("n"), s.told("x")),
        CHORD_FAILED,
        "a f x",
    ),
    # The outer one is never told, in plain Celery as well.
    "a chord fails in a chord": Shape(
        lambda s: chord(
            [chord([s("a", 1), s.fails("f")], s("n")), s("b", 2)], _on_error(s("n"), s.told("x"))
        ),
        PENDING,
        "a b f",
    ),
}

FAILURES: Final = {**TASKS, **CHAINS, **GROUPS, **CHORDS}
