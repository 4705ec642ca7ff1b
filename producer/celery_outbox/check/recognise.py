"""Whether a call is a send, and of what: decided from one expression and what its names mean."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from celery_outbox.check.index import Index, Task
from celery_outbox.check.names import Names, dotted, keyword, last, text

#: Methods that send what they are called on.
SENDING: Final = frozenset({"delay", "apply_async", "delay_on_commit", "apply_async_on_commit"})
ENQUEUING: Final = frozenset({"enqueue", "aenqueue"})
#: Methods of a task that make something to be sent later, and what that is.
MAKING: Final = {
    "s": "signature",
    "si": "signature",
    "signature": "signature",
    "subtask": "signature",
    "map": "signature",
    "starmap": "signature",
    "chunks": "chunks",
}
#: Methods of a signature that return it, or one like it.
CHAINING: Final = frozenset({"set", "on_error", "clone", "using"})
CANVAS: Final = frozenset({"chain", "group", "chord", "signature", "subtask", "maybe_signature"})
#: What, when it is called, sends. A signature that is called runs its task instead.
CALLED: Final = frozenset({"chain", "group", "chord", "chunks"})
#: Arguments that tell a retry of Celery's from any other method of that name.
RETRYING: Final = frozenset({"exc", "countdown", "eta", "max_retries"})
POOLS: Final = ("multiprocessing", "billiard", "pathos", "gevent", "joblib", "concurrent")


@dataclass(frozen=True)
class Thing:
    """Something that can be sent."""

    kind: str
    name: str | None
    certain: bool
    lock: str | None = None
    django: bool = False


@dataclass(frozen=True)
class Sent:
    """A call that sends, or seems to."""

    call: str
    thing: Thing
    #: Whether it is a task's own retry or replacement.
    own: bool = False
    #: Why it cannot be told what this is.
    doubt: str | None = None


@dataclass(frozen=True)
class Meaning:
    """What names mean at a place: in the code base, in the module, in the function."""

    index: Index
    names: Names
    #: Names that the function binds; the value, where it binds them once.
    local: Mapping[str, ast.expr | None] = field(default_factory=dict)
    #: The task in whose body the place is, and its name for itself.
    task: Task | None = None
    own_name: str | None = None

    def path(self, node: ast.expr) -> str | None:
        """Return the full name of what an expression refers to."""
        first = (dotted(node) or "").partition(".")[0]
        return None if first in self.local else self.names.resolve(node)

    def value(self, node: ast.expr) -> ast.expr | None:
        """Return what a local name is bound to, if it is bound once."""
        return self.local.get(node.id) if isinstance(node, ast.Name) else None


def send(call: ast.Call, meaning: Meaning) -> Sent | None:
    """Tell whether a call is a send."""
    function = call.func
    if isinstance(function, ast.Attribute):
        if function.attr in SENDING:
            return _sending(function, meaning)
        if function.attr == "send_task":
            name = text(call.args[0] if call.args else keyword(call, "name"))
            return Sent("send_task", Thing("task", name, certain=_is_app(function.value, meaning)))
        if function.attr in ("retry", "replace"):
            return _own(call, function, meaning)
        if function.attr in ENQUEUING:
            return _enqueuing(function, meaning)
    made = thing(function, meaning)
    if made is None or made.kind == "task":
        return None
    if made.kind in CALLED:
        return Sent(f"{made.kind}()", made)
    return Sent("signature()", made)


def reference(node: ast.Attribute, meaning: Meaning) -> Sent | None:
    """Tell whether a method that is not called here is one that sends."""
    if node.attr not in SENDING | ENQUEUING:
        return None
    made = thing(node.value, meaning)
    return Sent(node.attr, made) if made else None


def thing(node: ast.expr, meaning: Meaning, depth: int = 8) -> Thing | None:
    """Return what can be sent of an expression, or None."""
    if depth == 0:
        return None
    if (value := meaning.value(node)) is not None:
        return thing(value, meaning, depth - 1)
    if isinstance(node, ast.Name | ast.Attribute):
        path = meaning.path(node)
        task = meaning.index.find(path) if path else None
        if task is None and meaning.task and isinstance(node, ast.Name) and _is_own(node, meaning):
            task = meaning.task
        return _of(task) if task else None
    if isinstance(node, ast.Call):
        return _made(node, meaning, depth)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        left, right = thing(node.left, meaning, depth - 1), thing(node.right, meaning, depth - 1)
        either = left or right
        if either is None or "task" in (left and left.kind, right and right.kind):
            return None
        return Thing("chain", None, either.certain)
    if isinstance(node, ast.Subscript) and last(node.value) == "tasks":
        return Thing("task", text(node.slice), certain=text(node.slice) is not None)
    if isinstance(node, ast.IfExp):
        return thing(node.body, meaning, depth - 1) or thing(node.orelse, meaning, depth - 1)
    return None


def _of(task: Task) -> Thing:
    return Thing("task", task.name, task.certain, task.lock, task.django)


def _made(call: ast.Call, meaning: Meaning, depth: int) -> Thing | None:
    """Return what a call makes, if that can be sent."""
    function = call.func
    path = meaning.path(function) or ""
    if path.startswith("celery.") and (kind := path.rpartition(".")[2]) in CANVAS:
        if kind in ("chain", "group", "chord"):
            return Thing(kind, None, certain=True)
        first = thing(call.args[0], meaning, depth - 1) if call.args else None
        name = first.name if first else text(call.args[0]) if call.args else None
        return Thing("signature", name, certain=True, lock=first.lock if first else None)
    if not isinstance(function, ast.Attribute):
        made = thing(function, meaning, depth - 1)
        return made if made and made.kind in ("task", "chord") else None
    base = thing(function.value, meaning, depth - 1)
    if function.attr in CHAINING:
        return base
    if function.attr in MAKING:
        if base is not None:
            return Thing(MAKING[function.attr], base.name, base.certain, base.lock, base.django)
        if function.attr in ("s", "si", "subtask"):
            return Thing("signature", dotted(function.value), certain=False)
    if function.attr in ("signature", "subtask") and _is_app(function.value, meaning):
        name = text(call.args[0]) if call.args else None
        return Thing("signature", name, certain=True)
    return None


def _sending(function: ast.Attribute, meaning: Meaning) -> Sent | None:
    """Tell what `.delay` or `.apply_async` is called on."""
    made = thing(function.value, meaning)
    if made is not None:
        return Sent(function.attr, made)
    receiver = function.value
    value = meaning.value(receiver) or receiver
    maker = value.func if isinstance(value, ast.Call) else value
    path = meaning.path(maker) or dotted(maker) or ""
    if path.partition(".")[0] in POOLS or path.endswith(("ThreadPool", "Pool", "ProcessPool")):
        return None
    name = _shown(receiver)
    maybe = Thing("task", name, certain=False)
    if isinstance(receiver, ast.Call) and dotted(receiver.func) == "super":
        return Sent(
            function.attr, maybe, doubt="a class of your own hands on what is sent elsewhere"
        )
    if not meaning.index.celery:
        return Sent(function.attr, maybe, doubt="nothing here imports Celery")
    if "pool" in (name or "").lower() or "executor" in (name or "").lower():
        return Sent(function.attr, maybe, doubt=f"{name} may be a pool of threads or processes")
    return Sent(function.attr, maybe)


def _own(call: ast.Call, function: ast.Attribute, meaning: Meaning) -> Sent | None:
    """Tell whether `.retry` or `.replace` is a task's own."""
    receiver = function.value
    path = meaning.path(receiver) or ""
    if _is_own(receiver, meaning) or path in ("celery.current_task", "celery._state.current_task"):
        name = meaning.task.name if meaning.task else None
        return Sent(function.attr, Thing("task", name, certain=True), own=True)
    if function.attr == "replace":
        return None
    made = thing(receiver, meaning)
    if made is not None and made.kind == "task":
        return Sent("retry", made, own=True)
    if any(given.arg in RETRYING for given in call.keywords) and meaning.index.celery:
        return Sent("retry", Thing("task", _shown(receiver), certain=False), own=True)
    return None


def _is_own(receiver: ast.expr, meaning: Meaning) -> bool:
    """Tell whether an expression is the running task itself."""
    return (
        isinstance(receiver, ast.Name)
        and meaning.own_name is not None
        and receiver.id == meaning.own_name
    )


def _enqueuing(function: ast.Attribute, meaning: Meaning) -> Sent | None:
    """Tell whether `.enqueue` is that of Django's tasks."""
    made = thing(function.value, meaning)
    if made is not None:
        return Sent(function.attr, made) if made.django else None
    if any(name.startswith(("django.tasks", "django_tasks")) for name in meaning.names.modules):
        maybe = Thing("task", _shown(function.value), certain=False, django=True)
        return Sent(function.attr, maybe, doubt="it may be one of Django's tasks")
    return None


def _is_app(node: ast.expr, meaning: Meaning) -> bool:
    """Tell whether an expression is certainly a Celery app: by its value or by its usual name."""
    if (meaning.path(node) or "") == "celery.current_app":
        return True
    value = meaning.value(node)
    if isinstance(value, ast.Call) and last(value.func) in ("Celery", "OutboxCelery"):
        return True
    return last(node) in ("app", "celery_app", "celery", "current_app")


def _shown(node: ast.expr) -> str | None:
    """Return an expression as a short name."""
    name = dotted(node)
    if name is None and isinstance(node, ast.Call):
        inner = dotted(node.func)
        name = f"{inner}(…)" if inner else None
    return name
