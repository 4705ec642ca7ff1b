"""What the whole code base defines: its tasks, locks on them, and blocks with a transaction.

One pass over all files, before any send is looked at.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from celery_outbox.check.names import Names, dotted, keyword, last, text
from celery_outbox.check.source import Source

#: Base classes that take a lock in Redis before they send.
LOCKS: Final = {"Singleton": "celery-singleton", "QueueOnce": "celery-once"}
ATOMIC: Final = "django.db.transaction.atomic"
DJANGO_TASK: Final = frozenset({"django.tasks.task", "django_tasks.task"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Locked:
    """A task that a library locks before it is sent, or a base class of such tasks."""

    task: str
    library: str
    path: str
    line: int


@dataclass(frozen=True)
class Task:
    """A task of the code base."""

    #: By which it is imported.
    path: str
    #: By which it is sent.
    name: str
    certain: bool
    django: bool = False
    bound: bool = False
    #: Which library locks it.
    lock: str | None = None


class Index:
    """Everything the code base defines that a send may refer to."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.names: dict[str, Names] = {}
        self.atomic_requests: str | None = None
        self.celery = False
        self.django = False
        self.outbox = False
        self.locked: list[Locked] = []
        self._tasks: dict[str, list[Task]] = defaultdict(list)
        #: Functions that a callback of `on_commit` calls, and where it does, by their last name.
        self._after_commit: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._of_node: dict[int, Task] = {}
        self._blocks: dict[str, bool] = {}
        self._bases: dict[str, tuple[str, ...]] = {}
        sources = list(sources)
        for source in sources:
            is_package = source.path.name == "__init__.py"
            names = Names(source.tree, source.module, is_package)
            self.names[source.shown] = names
            self.celery |= any(name.partition(".")[0] == "celery" for name in names.modules)
            self.django |= any(name.partition(".")[0] == "django" for name in names.modules)
            self.outbox |= any(name.startswith("celery_outbox") for name in names.modules)
            self._note_classes(source, names)
        for source in sources:
            self._note(source, self.names[source.shown])

    def task_at(self, node: ast.AST) -> Task | None:
        """Return the task that a function or class defines."""
        return self._of_node.get(id(node))

    def find(self, path: str) -> Task | None:
        """Return the task that is imported by this name; a namesake elsewhere is not certain."""
        known = self._tasks.get(path.rpartition(".")[2], [])
        for task in known:
            if same(task.path, path):
                # An import names the packages above that a folder without __init__ does not.
                return replace(task, name=path) if task.name == task.path else task
        return replace(known[0], certain=False) if len(known) == 1 else None

    def after_commit(self, path: str) -> str | None:
        """Return where `on_commit` is given a function, if it is."""
        given = self._after_commit.get(path.rpartition(".")[2], [])
        return next((where for other, where in given if same(other, path)), None)

    def block(self, path: str) -> bool | None:
        """Tell whether a context manager certainly holds a transaction; None: it is not known."""
        if path in self._blocks:
            return self._blocks[path]
        name = path.rpartition(".")[2]
        namesakes = [known for known in self._blocks if known.rpartition(".")[2] == name]
        return False if namesakes else None

    def _note_classes(self, source: Source, names: Names) -> None:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                bases = tuple(names.resolve(base) or last(base) or "" for base in node.bases)
                self._bases[f"{source.module}.{node.name}"] = bases

    def _note(self, source: Source, names: Names) -> None:
        for node in ast.walk(source.tree):
            if isinstance(node, Function):
                self._note_function(node, source, names)
            elif isinstance(node, ast.ClassDef):
                path = f"{source.module}.{node.name}"
                if self._derives(path):
                    task = Task(path, _own_name(node) or path, True, lock=self._lock(path))
                    self._add(node, task, source)
            elif isinstance(node, ast.Assign):
                self._note_assignment(node, source, names)
            elif isinstance(node, ast.Call):
                self._note_on_commit(node, source, names)
            elif isinstance(node, ast.Dict):
                for key in node.keys:
                    self._note_requests(key, source)

    def _note_function(self, node: Function, source: Source, names: Names) -> None:
        path = f"{source.module}.{node.name}"
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            maker = decorator.func if isinstance(decorator, ast.Call) else decorator
            made_by, name = names.resolve(maker) or "", last(maker) or ""
            if made_by.startswith("contextlib.") and _yields_in_atomic(node, names):
                self._blocks[path] = True
            elif made_by in DJANGO_TASK:
                self._add(node, Task(path, path, True, django=True), source)
            elif name in ("task", "shared_task", "periodic_task") or "task" in name.lower():
                base = keyword(call, "base") if call else None
                base_path = (names.resolve(base) or last(base) or "") if base else ""
                task = Task(
                    path,
                    (text(keyword(call, "name")) if call else None) or path,
                    certain=name in ("task", "shared_task"),
                    bound=bool(call) and _true(keyword(call, "bind")) if call else False,
                    lock=self._lock(base_path) if base_path else None,
                )
                self._add(node, task, source)

    def _note_assignment(self, node: ast.Assign, source: Source, names: Names) -> None:
        """Note tasks that are made by a call, and ATOMIC_REQUESTS."""
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name) and target.id == "ATOMIC_REQUESTS":
            self._note_requests(ast.Constant("ATOMIC_REQUESTS", lineno=node.lineno), source)
        if isinstance(target, ast.Subscript):
            self._note_requests(target.slice, source)
        if not (isinstance(target, ast.Name) and isinstance(value, ast.Call)):
            return
        maker = value.func.func if isinstance(value.func, ast.Call) else value.func
        if last(maker) in ("register_task", "task", "shared_task") and value.args:
            path = f"{source.module}.{target.id}"
            given = value.args[0].func if isinstance(value.args[0], ast.Call) else value.args[0]
            of = names.resolve(given)
            known = self.find(of) if of else None
            self._tasks[target.id].append(
                replace(known, path=path) if known else Task(path, path, certain=True)
            )

    def _note_on_commit(self, node: ast.Call, source: Source, names: Names) -> None:
        """Note the function that a callback consists of."""
        if last(node.func) != "on_commit":
            return
        given = node.args[0] if node.args else keyword(node, "func")
        if isinstance(given, ast.Lambda):
            given = given.body.func if isinstance(given.body, ast.Call) else None
        elif isinstance(given, ast.Call) and last(given.func) == "partial" and given.args:
            given = given.args[0]
        if given is None:
            return
        path = names.resolve(given)
        if path is None and (dotted(given) or "").startswith(("self.", "cls.")):
            path = f"{source.module}.{last(given)}"
        if path is not None:
            self._after_commit[path.rpartition(".")[2]].append(
                (path, f"{source.shown}:{node.lineno}")
            )

    def _note_requests(self, key: ast.expr | None, source: Source) -> None:
        if key is not None and text(key) == "ATOMIC_REQUESTS" and self.atomic_requests is None:
            self.atomic_requests = f"{source.shown}:{key.lineno}"

    def _add(self, node: Function | ast.ClassDef, task: Task, source: Source) -> None:
        if id(node) in self._of_node:
            return
        self._of_node[id(node)] = task
        self._tasks[task.path.rpartition(".")[2]].append(task)
        if task.lock:
            self.locked.append(Locked(task.name, task.lock, source.shown, node.lineno))

    def _derives(self, path: str, seen: frozenset[str] = frozenset()) -> bool:
        """Tell whether a class is one of Celery's tasks."""
        for base in self._bases.get(path, ()):
            if base in ("celery.Task", "celery.app.task.Task") or base.endswith(
                ("app.Task", ".DjangoTask")
            ):
                return True
            if base.rpartition(".")[2] in LOCKS and base.startswith("celery_"):
                return True
            if base not in seen and self._derives(base, seen | {base}):
                return True
        return False

    def _lock(self, path: str, seen: frozenset[str] = frozenset()) -> str | None:
        """Return the library that locks the tasks of a base class."""
        name = path.rpartition(".")[2]
        if name in LOCKS and path not in self._bases:
            return LOCKS[name]
        for base in self._bases.get(path, ()):
            if base not in seen and (lock := self._lock(base, seen | {base})):
                return lock
        return None


def same(one: str, other: str) -> bool:
    """Tell whether two names are one, as seen from folders above one another."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _yields_in_atomic(node: Function, names: Names) -> bool:
    """Tell whether a context manager yields inside of `transaction.atomic()`."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.With | ast.AsyncWith):
            makers = [
                item.context_expr.func
                for item in inner.items
                if isinstance(item.context_expr, ast.Call)
            ]
            if any(names.resolve(maker) == ATOMIC for maker in makers):
                return any(isinstance(part, ast.Yield) for part in ast.walk(inner))
    return False


def _own_name(node: ast.ClassDef) -> str | None:
    """Return the name that a task's class gives it."""
    for statement in node.body:
        if isinstance(statement, ast.Assign) and last(statement.targets[0]) == "name":
            return text(statement.value)
    return None


def _true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True
