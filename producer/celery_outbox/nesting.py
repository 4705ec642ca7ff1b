"""Which of the blocks that are open the running code is in.

A context variable alone cannot tell: generators share the context of whoever runs them, so of two
that take turns, each with a block of its own, the one entered last is not always the one that runs.
So a block remembers the generators that were running as it was entered, and the code is in it while
all of these run. Context managers made of generators do not count: they run no code of the block.

A process that is forked inside a block is in none: the connection is the parent's, and what is put
into a copy of its buffer would be stored by nobody.
"""

import os
import sys
from contextvars import Context, ContextVar, Token, copy_context
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from types import FrameType
from typing import Final

from celery_outbox.errors import AmbiguousBlock, UnusableTarget

_entered: ContextVar[tuple["Nested", ...]] = ContextVar("celery_outbox_blocks", default=())
_probe: ContextVar[None] = ContextVar("celery_outbox_probe")
_GENERATOR: Final = CO_GENERATOR | CO_ASYNC_GENERATOR

os.register_at_fork(after_in_child=lambda: _entered.set(()))


class Nested:
    """A block that others may be inside of, or overlap with. It may end anywhere, in any order."""

    def __init__(self, given: object) -> None:
        self._given = given
        self._open = False
        self._generators: tuple[FrameType, ...] = ()
        self._token: Token[None] | None = None  # of the context that it was entered in

    def _enter(self) -> None:
        self._open = True
        self._generators = _running_generators()
        self._token = _probe.set(None)
        _entered.set((*_entered.get(), self))

    def _exit(self) -> None:
        self._open = False
        self._generators = ()
        _entered.set(tuple(block for block in _entered.get() if block is not self))
        self._is_of_this_context()  # so that no cycle with the context is left

    def check_not_open(self) -> None:
        """Raise UnusableTarget where the block would be entered twice at a time."""
        if self._open:
            raise UnusableTarget.about(
                target="A block",
                reason="it is open already; call using() or transaction() for each `with`",
            )

    def _is_of_this_context(self) -> bool:
        """Tell whether this context is the one the block was entered in, no copy of it.

        True once at most: a token can be used once.
        """
        try:
            if self._token is None:
                return False
            _probe.reset(self._token)
        except ValueError:
            return False
        self._token = None
        return True


def open_blocks() -> object:
    """Return what is the same object for as long as no block is entered or ended here."""
    return _entered.get()


def innermost() -> Nested | None:
    """Return the block the running code is in, if any, or was started in, if that has ended.

    Raises AmbiguousBlock where generators that do not run now hold several open.
    """
    blocks = _entered.get()
    if not all(block._open for block in blocks):
        blocks = _without_ended(blocks)
    if not blocks:
        return None
    last = blocks[-1]
    if all(block._given is last._given for block in blocks):
        return last
    running = {frame: depth for depth, frame in enumerate(_running_generators())}
    around = [block for block in blocks if all(frame in running for frame in block._generators)]
    if around:
        around.reverse()  # max() returns the first of several: the one entered last
        return max(
            around, key=lambda block: max(map(running.__getitem__, block._generators), default=-1)
        )
    if all(block._generators == last._generators for block in blocks):
        return last
    raise AmbiguousBlock.about()


def outside_all() -> Context:
    """Return a copy of this context that is in none of the blocks that are open."""
    context = copy_context()
    context.run(_entered.set, ())
    return context


def blocks_on(given: object) -> list[Nested]:
    """Return the open blocks on a target that the running code is in, innermost first."""
    return [block for block in reversed(_entered.get()) if block._open and block._given is given]


def _without_ended(blocks: tuple[Nested, ...]) -> tuple[Nested, ...]:
    """Forget blocks that were entered here and ended in another context, as by a finaliser.

    Others that have ended stay: this is a thread or task that was started inside and outlived them.
    """
    left = tuple(block for block in blocks if block._open or not block._is_of_this_context())
    _entered.set(left)
    return left


def _running_generators() -> tuple[FrameType, ...]:
    """Return the frames of the generators that are running, outermost first."""
    found = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        outer = frame.f_back
        if frame.f_code.co_flags & _GENERATOR and not _is_contextlib(outer):
            found.append(frame)
        frame = outer
    return tuple(reversed(found))


def _is_contextlib(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_globals.get("__name__") == "contextlib"
