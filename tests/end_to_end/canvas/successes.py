"""Shapes in which all goes well. Each number is a power of two: a sum tells who is in it."""

import json
from typing import Any, Final

from celery import chain, chord, group, signature

from tests.end_to_end.canvas.shape import Shape
from tests.end_to_end.canvas.steps import Steps

#: Members of a wide group or header.
WIDE: Final = 60


def _rebuilt(canvas: Any, app: Any) -> Any:
    """Return a canvas that was written as JSON and read again."""
    return signature(json.loads(json.dumps(canvas)), app=app)


def _linked(canvas: Any, *followers: Any) -> Any:
    for follower in followers:
        canvas.link(follower)
    return canvas


def _wide(s: Steps) -> list[Any]:
    return [s("m", number) for number in range(WIDE)]


def _chords_in_a_row(s: Steps, count: int) -> Any:
    pairs = [chord([s("h"), s("h")], s("b", 1)) for _ in range(count)]
    return chain(s("a", 1), *pairs)


def _deep(s: Steps) -> Any:
    inner = chord([s("c", 4) | s("d", 8), group(s("e", 16), s("f", 32))], s("g", 64) | s("h", 128))
    return chain(s("a", 1), group(s("b", 2), inner), s("i", 256))


CHAINS: Final[dict[str, Shape]] = {
    "a task": Shape(lambda s: s("a", 1), 1, "a"),
    "a chain": Shape(lambda s: s("a", 1) | s("b", 2) | s("c", 4), 7, "a b c"),
    "a chain of one": Shape(lambda s: chain(s("a", 1)), 1, "a"),
    "chains within chains": Shape(
        lambda s: chain(s("a", 1), chain(s("b", 2), chain(s("c", 4))), s("d", 8)), 15, "a b c d"
    ),
    "a step that takes nothing": Shape(
        lambda s: s("a", 1) | s.alone("b", 2) | s("c", 4), 6, "a b c"
    ),
    "a chain that is given arguments": Shape(
        lambda s: s("a", 1) | s("b", 2), 103, "a b", args=(100,)
    ),
    "a step that is due later": Shape(
        lambda s: s("a", 1) | s("b", 2).set(countdown=0.2) | s("c", 4), 7, "a b c"
    ),
    "a step without a result": Shape(
        lambda s: s("a", 1).set(ignore_result=True) | s("b", 2), 3, "a b"
    ),
    "a chain from JSON": Shape(
        lambda s: _rebuilt(s("a", 1) | (s("b", 2) | s("c", 4)), s.app), 7, "a b c"
    ),
    "a map in a chain": Shape(lambda s: s.add.starmap([(1, 2), (4, 8)]) | s("a", 16), 31, "a"),
    "chunks": Shape(
        lambda s: s.add.chunks([(1, 2), (4, 8), (16, 32)], 2).group(), [[3, 12], [48]], ""
    ),
}

GROUPS: Final[dict[str, Shape]] = {
    "a group": Shape(lambda s: group(s("a", 1), s("b", 2), s("c", 4)), [1, 2, 4], "a b c"),
    "a group of one": Shape(lambda s: group(s("a", 1)), [1], "a"),
    "a wide group": Shape(lambda s: group(_wide(s)), list(range(WIDE)), " ".join("m" * WIDE)),
    "groups within groups": Shape(
        lambda s: group(s("a", 1), group(s("b", 2), group(s("c", 4), s("d", 8)))),
        [1, 2, 4, 8],
        "a b c d",
    ),
    "a group that is given arguments": Shape(
        lambda s: group(s("a", 1), s("b", 2)), [101, 102], "a b", args=(100,)
    ),
    "chains in a group": Shape(
        lambda s: group(s("a", 1) | s("b", 2), s("c", 4) | s("d", 8)), [3, 12], "a b c d"
    ),
    "a group that ends a chain": Shape(
        lambda s: s("a", 1) | group(s("b", 2), s("c", 4)), [3, 5], "a b c"
    ),
    "a group within a chain": Shape(
        lambda s: chain(s("a", 1), group(s("b", 2), s("c", 4)), s("d", 8)), 16, "a b c d"
    ),
    "a group that begins a chain": Shape(
        lambda s: group(s("a", 1), s("b", 2)) | s("c", 4), 7, "a b c"
    ),
    "a group of one within a chain": Shape(
        lambda s: chain(s("a", 1), group(s("b", 2)), s("c", 4)), 7, "a b c"
    ),
    "two groups in a row": Shape(
        lambda s: group(s("a", 1), s("b", 2)) | group(s("c", 4), s("d", 8)), [7, 11], "a b c d"
    ),
    "three groups in a row, then a task": Shape(
        lambda s: chain(
            group(s("a", 1), s("b", 2)),
            group(s("c", 4), s("d", 8)),
            group(s("e", 16), s("f", 32)),
            s("g", 64),
        ),
        148,
        "a b c d e f g",
    ),
    "a chain within a chain, led by a group": Shape(
        lambda s: chain(s("a", 1), chain(group(s("b", 2), s("c", 4)), s("d", 8)), s("e", 16)),
        32,
        "a b c d e",
    ),
    "a chain in a group, which ends with a group": Shape(
        lambda s: group(chain(s("a", 1), group(s("b", 2), s("c", 4))), s("d", 8)),
        [[3, 5], 8],
        "a b c d",
    ),
    "a group from JSON": Shape(
        lambda s: _rebuilt(group(s("a", 1) | s("b", 2), group(s("c", 4), s("d", 8))), s.app),
        [3, 4, 8],
        "a b c d",
    ),
}

CHORDS: Final[dict[str, Shape]] = {
    "a chord": Shape(lambda s: chord([s("a", 1), s("b", 2)], s("c", 4)), 7, "a b c"),
    "a chord of one": Shape(lambda s: chord([s("a", 1)], s("b", 2)), 3, "a b"),
    "a chord of nothing": Shape(lambda s: chord([], s("a", 1), app=s.app), 1, "a"),
    "a chord of a generator": Shape(
        lambda s: chord((s(label, 1) for label in "abc"), s("d", 2)), 5, "a b c d"
    ),
    "a wide chord": Shape(
        lambda s: chord(_wide(s), s("n")), sum(range(WIDE)), " ".join("m" * WIDE + "n")
    ),
    "a chord that is given arguments": Shape(
        lambda s: chord([s("a", 1), s("b", 2)], s("c", 4)), 207, "a b c", args=((100,),)
    ),
    "a chord in a chain": Shape(
        lambda s: chain(s("a", 1), chord([s("b", 2), s("c", 4)], s("d", 8)), s("e", 16)),
        32,
        "a b c d e",
    ),
    "five chords in a row": Shape(
        lambda s: _chords_in_a_row(s, 5), 63, "a b b b b b " + " ".join("h" * 10)
    ),
    "chords side by side": Shape(
        lambda s: group(
            chord([s("a", 1), s("b", 2)], s("c", 4)), chord([s("d", 8), s("e", 16)], s("f", 32))
        ),
        [7, 56],
        "a b c d e f",
    ),
    "a chord of chords": Shape(
        lambda s: chord(
            [
                chord([s("a", 1), s("b", 2)], s("c", 4)),
                chord([s("d", 8), s("e", 16)], s("f", 32)),
            ],
            s("g", 64),
        ),
        127,
        "a b c d e f g",
    ),
    "a chord of chains": Shape(
        lambda s: chord([s("a", 1) | s("b", 2), s("c", 4) | s("d", 8)], s("e", 16)), 31, "a b c d e"
    ),
    "a chord of groups": Shape(
        lambda s: chord([group(s("a", 1), s("b", 2)), group(s("c", 4), s("d", 8))], s("e", 16)),
        31,
        "a b c d e",
    ),
    "a chord whose body is a chain": Shape(
        lambda s: chord([s("a", 1), s("b", 2)], s("c", 4) | s("d", 8)), 15, "a b c d"
    ),
    "a chord whose body is a group": Shape(
        lambda s: chord([s("a", 1), s("b", 2)], group(s("c", 4), s("d", 8))), [7, 11], "a b c d"
    ),
    "a chord whose body is a chord": Shape(
        lambda s: chord([s("a", 1), s("b", 2)], chord([s("c", 4), s("d", 8)], s("e", 16))),
        34,
        "a b c d e",
    ),
    "a chord whose body is a chain of groups": Shape(
        lambda s: chord(
            [s("a", 1), s("b", 2)], chain(s("c", 4), group(s("d", 8), s("e", 16)), s("f", 32))
        ),
        70,
        "a b c d e f",
    ),
    "chains, groups and chords in one another": Shape(_deep, 514, "a b c d e f g h i"),
    "a chord from JSON": Shape(
        lambda s: _rebuilt(chord([s("a", 1) | s("b", 2), s("c", 4)], s("d", 8)), s.app),
        15,
        "a b c d",
    ),
    # What is added has the place of who added it: their order is left to chance.
    "a chord that grows": Shape(
        lambda s: chord([s("a", 1), s.grows("b", 2, s("c", 2))], s("d", 8)), 13, "a b c d"
    ),
}

LINKS: Final[dict[str, Shape]] = {
    "a link": Shape(lambda s: _linked(s("a", 1), s("x")), 1, "a x"),
    "two links": Shape(lambda s: _linked(s("a", 1), s("x"), s("y")), 1, "a x y"),
    "a link with a link": Shape(lambda s: _linked(s("a", 1), _linked(s("x"), s("y"))), 1, "a x y"),
    "a link that is a chain": Shape(lambda s: _linked(s("a", 1), s("x") | s("y")), 1, "a x y"),
    "a link that is a group": Shape(
        lambda s: _linked(s("a", 1), group(s("x"), s("y") | s("z"))), 1, "a x y z"
    ),
    "a link that is a chord": Shape(
        lambda s: _linked(s("a", 1), chord([s("x"), s("y")], s("z"))), 1, "a x y z"
    ),
    "links of the steps of a chain": Shape(
        lambda s: _linked(s("a", 1), s("x")) | _linked(s("b", 2), s("y")), 3, "a b x y"
    ),
    "a link of a chain": Shape(lambda s: _linked(s("a", 1) | s("b", 2), s("x")), 3, "a b x"),
    "a link of a chain within a chain": Shape(
        lambda s: chain(s("a", 1), _linked(s("b", 2) | s("c", 4), s("x")), s("d", 8)),
        15,
        "a b c d x",
    ),
    "links of the members of a group": Shape(
        lambda s: group(_linked(s("a", 1), s("x")), _linked(s("b", 2), s("y"))), [1, 2], "a b x y"
    ),
    "a link of a chord": Shape(
        lambda s: _linked(chord([s("a", 1), s("b", 2)], s("c", 4)), s("x")), 7, "a b c x"
    ),
    "links in a header": Shape(
        lambda s: chord([_linked(s("a", 1), s("x")), s("b", 2)], s("c", 4)), 7, "a b c x"
    ),
}

SUCCESSES: Final = {**CHAINS, **GROUPS, **CHORDS, **LINKS}
