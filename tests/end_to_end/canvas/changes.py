"""Shapes whose tasks retry, replace or stamp themselves, wherever they stand."""

from collections.abc import Callable
from typing import Any, Final

from celery import chain, chord, group
from celery.canvas import StampingVisitor  # type: ignore[attr-defined]  # not in the stubs

from tests.end_to_end.canvas.shape import Shape
from tests.end_to_end.canvas.steps import Steps, numbers

#: A place for one task, which is given no argument or adds what it gets.
Place = Callable[[Steps, Any], Any]

#: Name -> the place; what the whole comes to, given what the task does; who else runs.
PLACES: Final[dict[str, tuple[Place, Callable[[Any], Any], str]]] = {
    "alone": (lambda s, it: it, lambda value: value, ""),
    "first of a chain": (lambda s, it: it | s("a", 1), lambda value: _sum(value) + 1, "a"),
    "within a chain": (
        lambda s, it: chain(s("a", 1), it, s("b", 2)),
        lambda value: _sum(value) + 2,
        "a b",
    ),
    "last of a chain": (lambda s, it: s("a", 1) | it, lambda value: value, "a"),
    "in a group": (lambda s, it: group(s("a", 1), it), lambda value: [1, value], "a"),
    "in a header": (
        lambda s, it: chord([s("a", 1), it, s("b", 2)], s("c", 4)),
        lambda value: _sum(value) + 7,
        "a b c",
    ),
    "in a chain in a header": (
        lambda s, it: chord([s("a", 1), s("b", 2) | it | s("c", 4)], s("d", 8)),
        lambda value: _sum(value) + 13,
        "a b c d",
    ),
    "as a body": (
        lambda s, it: chord([s("a", 1), s("b", 2)], it),
        lambda value: value,
        "a b",
    ),
    "as a link": (lambda s, it: s("a", 1).set(link=[it]), lambda value: 1, "a"),
}

#: Name -> a replacement, what it comes to, and who runs.
REPLACEMENTS: Final[dict[str, tuple[Callable[[Steps], Any], Any, str]]] = {
    "a task": (lambda s: s("r", 16), 16, "r"),
    "a chain": (lambda s: s("r", 16) | s("s", 32), 48, "r s"),
    "a group": (lambda s: group(s("r", 16), s("s", 32)), [16, 32], "r s"),
    "a chord": (lambda s: chord([s("r", 16), s("s", 32)], s("t", 64)), 112, "r s t"),
    "one that is replaced": (lambda s: s.becomes("q", s("r", 16)), 16, "q r"),
    "one that retries itself": (lambda s: s.stumbles("r", 16, times=1), 16, "r r"),
}


def _sum(value: Any) -> int:
    return sum(numbers(value))


def _sorted(*labels: str) -> str:
    return " ".join(sorted(" ".join(labels).split()))


def _replaced(place: str, what: str) -> Shape:
    put, value_of, others = PLACES[place]
    replacement, value, ran = REPLACEMENTS[what]
    return Shape(
        lambda s: put(s, s.becomes("p", replacement(s))), value_of(value), _sorted(others, "p", ran)
    )


def _retried(place: str) -> Shape:
    """Nothing is added to what the task gets, so the place's value is that of nobody there."""
    put, value_of, others = PLACES[place]
    before = {
        "within a chain": 1,
        "last of a chain": 1,
        "in a chain in a header": 2,
        "as a body": 3,
    }
    return Shape(
        lambda s: put(s, s.stumbles("r", 16, times=2)),
        value_of(16 + before.get(place, 0)),
        _sorted(others, "r r r"),
    )


REPLACED: Final = {
    f"replaced by {what}, {place}": _replaced(place, what)
    for place in PLACES
    for what in REPLACEMENTS
}
RETRIED: Final = {f"retried, {place}": _retried(place) for place in PLACES}


class Tags(StampingVisitor):  # type: ignore[misc]  # not in the stubs
    """Stamps every task with its name, and groups and chains with what they are."""

    def on_signature(self, sig: Any, **_: Any) -> dict[str, Any]:
        """Said of each task."""
        return {"tag": sig.kwargs.get("label", "?"), "stamped_headers": ["tag"]}

    def on_chain_start(self, _chain: Any, **_: Any) -> dict[str, Any]:
        """Handed on to its steps."""
        return {"within": "chain", "stamped_headers": ["within"]}

    def on_callback(self, _callback: Any, **_: Any) -> dict[str, Any]:
        """Said of links."""
        return {"linked": True}

    def on_errback(self, _errback: Any, **_: Any) -> dict[str, Any]:
        """Said of errbacks."""
        return {"errback": True}


def _stamped(canvas: Any) -> Any:
    canvas.stamp(visitor=Tags())
    return canvas


def _marked(canvas: Any, **stamps: str) -> Any:
    canvas.stamp(**stamps)
    return canvas


STAMPED: Final[dict[str, Shape]] = {
    "a stamped task": Shape(lambda s: _stamped(s("a", 1)), 1, "a"),
    "a stamped chain": Shape(lambda s: _stamped(s("a", 1) | s("b", 2) | s("c", 4)), 7, "a b c"),
    "a stamped chord in a chain": Shape(
        lambda s: _stamped(chain(s("a", 1), group(s("b", 2), s("c", 4)), s("d", 8))), 16, "a b c d"
    ),
    "a stamped link and errback": Shape(
        lambda s: _stamped(
            group(s("a", 1).set(link=[s("x")]), s.fails("f").set(link_error=[s.told("y")]))
        ),
        [1, "ValueError('f')"],
        "a f x y",
    ),
    "a stamped retry": Shape(lambda s: _stamped(s.stumbles("a", 1, times=2)), 1, "a a a"),
    "a stamped replacement": Shape(
        lambda s: _stamped(s.becomes("p", _marked(s("r", 1), colour="red"))), 1, "p r"
    ),
    "a part stamped by itself": Shape(
        lambda s: chain(s("a", 1), _marked(s("b", 2), colour="red"), s("c", 4)), 7, "a b c"
    ),
}

ENDED: Final[dict[str, Shape]] = {
    "a chord that grows by one that retries itself": Shape(
        lambda s: chord([s("a", 1), s.grows("b", 2, s("c", 2), times=1)], s("d", 8)),
        15,
        "a b b c c d",
    ),
    "retried too often": Shape(
        lambda s: s.stumbles("a", 1, times=5, allowed=1).set(link_error=[s.told("x")]),
        "ValueError('a')",
        "a a x",
    ),
    "retried too often, in a header": Shape(
        lambda s: chord(
            [s.stumbles("a", 1, times=5, allowed=1), s("b", 2)], s("n").on_error(s.told("x"))
        ),
        "ChordError(\"Dependency <a> raised ValueError('a')\")",
        "a a b x",
    ),
    "replaced, with a link": Shape(
        lambda s: s.becomes("p", s("r", 1)).set(link=[s("x")]), 1, "p r x"
    ),
    "replaced by a chain, with a link": Shape(
        lambda s: s.becomes("p", s("r", 1) | s("s", 2)).set(link=[s("x")]), 3, "p r s x"
    ),
    "replaced by one that fails, with an errback": Shape(
        lambda s: s.becomes("p", s.fails("f")).set(link_error=[s.told("x")]),
        "ValueError('f')",
        "f p x",
    ),
    "replaced by a chain with an errback of its own": Shape(
        lambda s: s.becomes("p", (s("r", 1) | s.fails("f")).on_error(s.told("y"))).set(
            link_error=[s.told("x")]
        ),
        "ValueError('f')",
        "f p r x y",
    ),
    "replaced by one that fails, in a header": Shape(
        lambda s: chord([s("a", 1), s.becomes("p", s.fails("f"))], s("n").on_error(s.told("x"))),
        "ChordError(\"Dependency <f> raised ValueError('f')\")",
        "a f p x",
    ),
}

CHANGES: Final = {**REPLACED, **RETRIED, **STAMPED, **ENDED}
