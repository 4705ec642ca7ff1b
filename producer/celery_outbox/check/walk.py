"""From the tree of a file to its findings: each send, with all that stands around it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace

from celery_outbox.check import callbacks, surroundings
from celery_outbox.check.finding import Certainty, Edit, Finding, Outcome
from celery_outbox.check.index import Index, Task
from celery_outbox.check.names import bound, last
from celery_outbox.check.recognise import Meaning, Sent, reference, send
from celery_outbox.check.sameness import Moment
from celery_outbox.check.source import Source
from celery_outbox.check.surroundings import Kind, Opening
from celery_outbox.check.verdict import Around, judge

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Place:
    """Where in a file a node stands."""

    meaning: Meaning
    around: Around
    function: Function | None = None
    statement: ast.stmt | None = None
    #: Functions inside of this one that are given to `on_commit`.
    given: frozenset[str] = frozenset()
    #: The task that this class is.
    of_class: Task | None = None


def findings(source: Source, index: Index) -> list[Finding]:
    """Return what a file sends, in its order."""
    found = Walk(source, index).run()
    return sorted(found, key=lambda finding: (finding.line, finding.column))


class Walk:
    """One way through one file."""

    def __init__(self, source: Source, index: Index) -> None:
        self._source = source
        self._index = index
        self._found: list[Finding] = []

    def run(self) -> list[Finding]:
        """Walk through all of it."""
        meaning = Meaning(self._index, self._index.names[self._source.shown])
        self._body(self._source.tree, Place(meaning, Around()))
        return self._found

    def _body(self, node: ast.AST, place: Place) -> None:
        for child in ast.iter_child_nodes(node):
            self._visit(child, place)

    def _visit(self, node: ast.AST, place: Place) -> None:
        if isinstance(node, ast.stmt):
            place = replace(place, statement=node)
        if isinstance(node, Function):
            self._function(node, place)
        elif isinstance(node, ast.ClassDef):
            task = self._index.task_at(node)
            opened = tuple(_decorators(node, place.meaning))
            inside = replace(place, of_class=task, around=Around(openings=opened))
            self._body(node, inside)
        elif isinstance(node, ast.Lambda):
            later = replace(place.around, openings=(), later="a lambda", locks=())
            self._body(node, replace(place, around=later))
        elif isinstance(node, ast.With | ast.AsyncWith):
            self._with(node, place)
        elif isinstance(node, ast.Call):
            self._call(node, place)
        elif isinstance(node, ast.Attribute):
            self._attribute(node, place)
        else:
            self._body(node, place)

    def _function(self, node: Function, place: Place) -> None:
        for decorator in node.decorator_list:
            self._visit(decorator, place)
        task = self._index.task_at(node) or place.of_class
        names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
        is_self = task is not None and (task.bound or place.of_class is not None)
        meaning = Meaning(
            self._index,
            place.meaning.names,
            {**place.meaning.local, **_locals(node)},
            task or place.meaning.task,
            names[0] if is_self and names else place.meaning.own_name,
        )
        openings = tuple(_decorators(node, meaning))
        nested = place.function is not None
        around = Around(
            openings=openings + (place.around.openings if place.of_class or not nested else ()),
            on_commit=nested and node.name in place.given,
            later=f"the function `{node.name}` inside of another" if nested else None,
            locks=tuple(_locks(node, meaning)),
            in_task=meaning.task is not None,
            called_at=self._index.after_commit(f"{self._source.module}.{node.name}"),
        )
        if nested and openings:
            around = replace(around, later=None)
        inside = replace(
            place,
            meaning=meaning,
            around=around,
            function=node,
            given=frozenset(_given(node, meaning)),
            of_class=None,
        )
        for part in (*node.args.defaults, *[part for part in node.args.kw_defaults if part]):
            self._visit(part, place)
        for statement in node.body:
            self._visit(statement, inside)

    def _with(self, node: ast.With | ast.AsyncWith, place: Place) -> None:
        openings = place.around.openings
        for item in node.items:
            self._visit(item.context_expr, place)
            opened = surroundings.opened(item.context_expr, place.meaning)
            openings += (opened,) if opened else ()
        inside = replace(place, around=replace(place.around, openings=openings))
        for statement in node.body:
            self._visit(statement, inside)

    def _call(self, node: ast.Call, place: Place) -> None:
        sure = callbacks.is_on_commit(node, place.meaning)
        given = callbacks.callback(node) if sure is not None else None
        if given is not None and self._on_commit(node, given, place, sure is True):
            return
        sent = send(node, place.meaning)
        if sent is not None:
            reason, edit = None, None
            if sent.call in callbacks.PLAIN:
                reason, edit = callbacks.plain(
                    node, sent, self._moment(place, late=False), self._source
                )
            self._note(node, sent, place, reason, edit)
        if isinstance(node.func, ast.Attribute):
            self._visit(node.func.value, place)
        else:
            self._visit(node.func, place)
        for part in (*node.args, *node.keywords):
            self._visit(part, place)

    def _on_commit(self, node: ast.Call, given: ast.expr, place: Place, sure: bool) -> bool:
        """Note the one send of a callback; tell whether there is nothing else in it to look at."""
        moment = self._moment(place, late=isinstance(given, ast.Lambda))
        wrapped = callbacks.unwrap(node, given, place.meaning, moment, self._source)
        around = replace(place.around, on_commit=True, sure=sure, later=None)
        inside = replace(place, around=around)
        if wrapped is not None:
            self._note(wrapped.node, wrapped.sent, inside, wrapped.reason, wrapped.edit)
            for part in ast.iter_child_nodes(wrapped.node):
                self._body(part, inside)
            return True
        if isinstance(given, ast.Lambda):
            self._visit(given.body, inside)
            return True
        if isinstance(given, ast.Call) and any(isinstance(n, ast.Lambda) for n in ast.walk(given)):
            # Of what a call returns, its name tells nothing.
            self._visit(given, replace(inside, around=replace(around, sure=False)))
            return True
        return False

    def _attribute(self, node: ast.Attribute, place: Place) -> None:
        """Note a method that sends and is handed on instead of called."""
        sent = reference(node, place.meaning)
        if sent is not None and isinstance(node.ctx, ast.Load):
            doubt = f"`{last(node)}` is handed on here, and called elsewhere"
            self._note(node, replace(sent, doubt=doubt), place)
        self._visit(node.value, place)

    def _moment(self, place: Place, *, late: bool) -> Moment:
        statement = place.statement or ast.Pass()
        return Moment(place.function, self._source.tree, statement, late)

    def _note(
        self,
        node: ast.expr,
        sent: Sent,
        place: Place,
        reason: str | None = None,
        edit: Edit | None = None,
    ) -> None:
        around = place.around
        if reason is not None:
            around = replace(around, on_commit=True)
        outcome, certainty, said = judge(sent, around, self._index)
        line, column = node.lineno, node.col_offset
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            line = node.func.end_lineno or line
        if outcome is not Outcome.ON_COMMIT:
            reason, edit = None, None
        if certainty is not Certainty.CERTAIN:
            edit = None
        lock = sent.thing.lock and f"{sent.thing.lock} locks this task before it is sent"
        held = next((o.shown for o in around.openings if o.kind is Kind.LOCK), None)
        held = held or next((shown for at, shown in around.locks if at < node.lineno), None)
        if held and not lock:
            lock = f"`{held}` is held here"
        if edit is not None and (against := _against(around, lock)):
            reason, edit = f"the wrapper can go, by hand: {against}", None
        self._found.append(
            Finding(
                self._source.shown, line, column + 1, sent.call, sent.thing.name,
                outcome, certainty, reason or said, lock, edit,
            )
        )  # fmt: skip


def _against(around: Around, lock: str | None) -> str | None:
    """Say what is against a send before the commit, whatever its arguments are."""
    if lock:
        return "before the commit, a rollback does not give the lock back"
    kinds = {opening.kind for opening in around.openings}
    if Kind.NAMED in kinds and Kind.JOINED not in kinds:
        return "the transaction here may be of another database"
    return None


def _locals(node: Function) -> dict[str, ast.expr | None]:
    """Return the names a function binds, with the value of each that is bound once, plainly."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    arguments += [arg for arg in (node.args.vararg, node.args.kwarg) if arg]
    imported = {
        alias.asname or alias.name.partition(".")[0]
        for part in ast.walk(node)
        if isinstance(part, ast.Import | ast.ImportFrom)
        for alias in part.names
    }
    values: dict[str, ast.expr | None] = dict.fromkeys(bound(node.body) - imported)
    values.update(dict.fromkeys(arg.arg for arg in arguments))
    assigned: dict[str, list[ast.expr | None]] = {}
    for part in ast.walk(node):
        if isinstance(part, ast.Assign) and len(part.targets) == 1:
            if isinstance(part.targets[0], ast.Name):
                assigned.setdefault(part.targets[0].id, []).append(part.value)
        elif isinstance(part, ast.With | ast.AsyncWith):
            for item in part.items:
                if isinstance(item.optional_vars, ast.Name):
                    assigned.setdefault(item.optional_vars.id, []).append(None)
    for name, given in assigned.items():
        if len(given) == 1 and name in values:
            values[name] = given[0]
    return values


def _decorators(node: Function | ast.ClassDef, meaning: Meaning) -> Iterator[Opening]:
    for decorator in node.decorator_list:
        if opening := surroundings.decorated(decorator, meaning):
            yield opening


def _given(node: Function, meaning: Meaning) -> Iterator[str]:
    """Yield the names that a function gives to `on_commit`."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and callbacks.is_on_commit(part, meaning) is not None:
            given = callbacks.callback(part)
            if isinstance(given, ast.Call) and last(given.func) == "partial" and given.args:
                given = given.args[0]
            if isinstance(given, ast.Name):
                yield given.id


def _locks(node: Function, meaning: Meaning) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each lock that a function takes."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and (shown := surroundings.locked_before(part, meaning)):
            yield part.lineno, shown
