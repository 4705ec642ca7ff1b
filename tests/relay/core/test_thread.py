"""Every thread of the relay logs as whoever made it does."""

import ast
from pathlib import Path

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars

import outbox_relay
from outbox_relay.core.thread import ContextThread

PACKAGE = Path(outbox_relay.__file__).parent


def test_a_thread_keeps_the_context_it_was_made_in() -> None:
    """Whoever starts it, and however long afterwards; what it binds itself stays its own."""
    seen = {}

    def look() -> None:
        seen.update(get_contextvars())
        structlog.contextvars.bind_contextvars(outbox="other")

    with bound_contextvars(outbox="shop"):
        thread = ContextThread(target=look)
    with bound_contextvars(outbox="mail"):
        thread.start()
        thread.join()
        assert get_contextvars() == {"outbox": "mail"}

    assert seen == {"outbox": "shop"}


def test_there_are_no_other_threads() -> None:
    """One that began without a context would log lines that are nobody's."""
    others = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("threading.Thread", "Thread")
    }

    assert others == set()
