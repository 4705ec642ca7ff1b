"""Tells whether psycopg stops every task of an eventlet pool until a query has its answer.

It waits in C, unless gevent has patched this process; for eventlet it does not look.
"""

import sys
from importlib import import_module
from typing import Any


def stopped_by_psycopg() -> tuple[str, ...]:
    """Return what is wrong, with the way out."""
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is None or not patcher.is_monkey_patched("select"):
        return ()
    try:
        waiting: Any = import_module("psycopg.waiting")
    except ImportError:
        return ()
    if waiting.wait is not getattr(waiting, "wait_c", None):
        return ()
    return (
        "psycopg stops all tasks of this eventlet pool until a query has its answer: start the"
        " worker with PSYCOPG_WAIT_FUNC=wait_select",
    )
