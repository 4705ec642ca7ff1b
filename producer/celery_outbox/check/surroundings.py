"""What stands around a send: transactions that are open there, and locks that are held."""

import ast
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from celery_outbox.check.index import ATOMIC
from celery_outbox.check.names import dotted, keyword, last, text
from celery_outbox.check.recognise import Meaning

#: Locks of one process or machine, which no other process waits for.
LOCAL: Final = ("threading", "asyncio", "multiprocessing", "anyio", "fasteners", "filelock")


class Kind(Enum):
    """What a block opens."""

    JOINED = auto()
    BEGUN = auto()
    LOCK = auto()
    #: Of a database that is named, which need not be the outbox's.
    NAMED = auto()


@dataclass(frozen=True)
class Opening:
    """A `with` block, or a decorator, around a send."""

    kind: Kind
    shown: str
    line: int
    certain: bool
    #: What `using` would be given.
    target: str = ""


def opened(node: ast.expr, meaning: Meaning) -> Opening | None:
    """Return what `with node:` or `@node` opens, as far as it matters to a send."""
    function = node.func if isinstance(node, ast.Call) else node
    if (value := meaning.value(node)) is not None and isinstance(value, ast.Call):
        function, node = value.func, value
    path = meaning.path(function) or ""
    shown = dotted(function) or last(function) or "a block"
    name = last(function) or ""
    if path == ATOMIC:
        kind = Kind.NAMED if _chooses(node) else Kind.JOINED
        return Opening(kind, shown, node.lineno, certain=True)
    known = meaning.index.block(path) if path else None
    if known is not None:
        return Opening(Kind.JOINED, shown, node.lineno, known)
    if isinstance(node, ast.Call):
        owner = function.value if isinstance(function, ast.Attribute) else None
        if name in ("using", "transaction") and owner is not None and last(owner) == "outbox":
            return Opening(Kind.JOINED, shown, node.lineno, certain=True)
        if name in ("begin", "begin_nested", "transaction") and owner is not None:
            target = dotted(owner) or "…"
            return Opening(Kind.BEGUN, shown, node.lineno, certain=False, target=target)
        lock = _lock(path, name)
        if lock:
            return Opening(Kind.LOCK, shown, node.lineno, certain=False)
    if name == "tm" or path == "transaction.manager":
        return Opening(Kind.BEGUN, shown, node.lineno, certain=False, target="session")
    if "atomic" in name.lower():
        return Opening(Kind.JOINED, shown, node.lineno, certain=False)
    return None


def decorated(node: ast.expr, meaning: Meaning) -> Opening | None:
    """Return what a decorator opens for the function below it."""
    if isinstance(node, ast.Call) and last(node.func) == "method_decorator" and node.args:
        found = opened(node.args[0], meaning)
        # Of a class, `name=` says which method it is for.
        return found if keyword(node, "name") is None else None
    found = opened(node, meaning)
    return found if found and found.kind in (Kind.JOINED, Kind.NAMED) else None


def locked_before(call: ast.Call, meaning: Meaning) -> str | None:
    """Return the lock that a call such as `lock.acquire()` takes, or None."""
    if not (isinstance(call.func, ast.Attribute) and call.func.attr in ("acquire", "acquire_lock")):
        return None
    value = meaning.value(call.func.value) or call.func.value
    maker = value.func if isinstance(value, ast.Call) else None
    if maker is None:
        return None
    path = meaning.path(maker) or ""
    return dotted(call.func) if _lock(path, last(maker) or "") else None


def _chooses(node: ast.expr) -> bool:
    """Tell whether `atomic` is given another database than `default`."""
    if not isinstance(node, ast.Call):
        return False
    given = keyword(node, "using") or (node.args[0] if node.args else None)
    return given is not None and text(given) != "default"


def _lock(path: str, name: str) -> bool:
    """Tell whether an expression makes a lock that other processes wait for."""
    if path.partition(".")[0] in LOCAL:
        return False
    if name in ("lock", "redis_lock", "cache_lock", "Redlock", "memcache_lock"):
        return True
    return name == "Lock" and path.startswith(("redis", "redis_lock", "pottery"))
