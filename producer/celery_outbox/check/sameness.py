"""Whether an argument is the same where a callback is made and where it runs, after the commit.

Only what can be seen to be the same is: a literal, a constant of the module that nothing binds
anew, and a local name that is bound before, and not again, and whose value nobody can have changed.
"""

import ast
import re
from dataclasses import dataclass
from typing import Final

from celery_outbox.check.names import bound

#: Names of what is a number or a string by all usage.
VALUE: Final = re.compile(r"(?:.*_)?(?:id|pk|uuid)")
PURE: Final = frozenset({"str", "int", "float", "bool", "repr"})
#: Types whose values nobody can change.
FIXED: Final = frozenset(
    {"str", "int", "float", "bool", "bytes", "UUID", "date", "datetime", "Decimal"}
)
#: Methods after which a row has its key.
STORING: Final = frozenset({"create", "get", "get_or_create", "update_or_create", "save"})

#: What binds a name other than by a plain assignment.
BINDING: Final = (
    ast.For, ast.AsyncFor, ast.AugAssign, ast.NamedExpr, ast.AnnAssign, ast.comprehension,
)  # fmt: skip

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Moment:
    """The statement that hands a callback over, and the function around it."""

    function: Function | None
    module: ast.Module
    statement: ast.stmt
    #: Whether arguments are evaluated when the callback runs (a lambda), not where it is made.
    late: bool


def why_not(node: ast.expr, moment: Moment) -> str | None:
    """Return why an argument may be another one after the commit, or None if it is the same."""
    if isinstance(node, ast.Constant):
        return None
    if isinstance(node, ast.Name):
        return _name(node.id, moment)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return _attribute(node.value.id, node.attr, moment)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return _first(node.elts, moment)
    if isinstance(node, ast.Dict):
        if any(key is None for key in node.keys):
            return "what is unpacked may change"
        return _first([part for part in (*node.keys, *node.values) if part], moment)
    if isinstance(node, ast.JoinedStr):
        inner = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        return _first(inner, moment)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PURE:
        return _first([*node.args, *(given.value for given in node.keywords)], moment)
    shown = ast.unparse(node)
    return f"`{shown if len(shown) < 40 else shown[:37] + '...'}` may be another after the commit"


def _first(nodes: list[ast.expr], moment: Moment) -> str | None:
    return next((reason for node in nodes if (reason := why_not(node, moment))), None)


def _name(name: str, moment: Moment) -> str | None:
    """Say what is against a plain name."""
    function = moment.function
    if function is None or not _binds(function, name):
        return _global(name, moment.module)
    if moment.late and (reason := _bound_again(name, moment)):
        return reason
    if VALUE.fullmatch(name) or _is_fixed(name, function):
        return None
    return f"`{name}` may be changed before the commit"


def _global(name: str, module: ast.Module) -> str | None:
    """Say what is against a name that the function does not bind."""
    if name not in bound(module.body):
        return f"`{name}` is of a function around this one"
    if sum(_rebinds(node, name) for node in ast.walk(module)) > 1:
        return f"`{name}` is bound more than once"
    values = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and any(_rebinds(part, name) for part in node.targets)
    ]
    if name.isupper() or (values and all(map(_is_value, values))):
        return None
    return f"`{name}` may be changed before the commit"


def _attribute(name: str, attribute: str, moment: Moment) -> str | None:
    """Say what is against `name.attribute`: only the key of a row that was stored is the same."""
    shown = f"{name}.{attribute}"
    if _is_settings(name, moment) and attribute.isupper():
        return None
    if moment.function is None or not _binds(moment.function, name):
        return f"`{shown}` may be another after the commit"
    if not VALUE.fullmatch(attribute):
        return f"`{shown}` may be changed before the commit"
    if not moment.late:
        return None
    if reason := _bound_again(name, moment):
        return reason
    if not _stored_before(name, moment):
        return f"`{shown}` may not be set before the commit"
    if _touched_after(name, moment):
        return f"`{name}` is used again before the commit"
    return None


def _is_settings(name: str, moment: Moment) -> bool:
    """Tell whether a name is that of Django's settings, which nothing changes while it runs."""
    if moment.function is not None and _binds(moment.function, name):
        return False
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "django.conf"
        and _rebinds_in(node, name)
        for node in moment.module.body
    )


def _binds(function: Function, name: str) -> bool:
    return any(_rebinds(node, name) for node in ast.walk(function))


def _rebinds(node: ast.AST, name: str) -> bool:
    """Tell whether a node gives a name another value."""
    if isinstance(node, ast.Name):
        return node.id == name and not isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.arg):
        return node.arg == name
    if isinstance(node, ast.Global | ast.Nonlocal):
        return name in node.names
    if isinstance(node, ast.alias):
        return (node.asname or node.name.partition(".")[0]) == name
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name == name
    return isinstance(node, ast.ExceptHandler) and node.name == name


def _bound_again(name: str, moment: Moment) -> str | None:
    """Say whether a local name gets another value between the callback and its run."""
    function = moment.function
    if function is None:
        return None
    for node in ast.walk(function):
        if isinstance(node, ast.Global | ast.Nonlocal) and name in node.names:
            return f"`{name}` may be bound anew elsewhere"
        is_loop = isinstance(node, ast.For | ast.AsyncFor | ast.While)
        if is_loop and _within(moment.statement, node) and _rebinds_in(node, name):
            return f"the callbacks of all rounds of the loop see the last `{name}`"
        if _rebinds(node, name) and _is_after(node, moment.statement):
            return f"`{name}` is bound anew before the commit"
    return None


def _within(statement: ast.AST, outer: ast.AST) -> bool:
    return any(node is statement for node in ast.walk(outer))


def _inside(statement: ast.AST, body: list[ast.stmt]) -> bool:
    return any(_within(statement, outer) for outer in body)


def _is_fixed(name: str, function: Function) -> bool:
    """Tell whether all that is bound to a local name is a value that nobody can change."""
    fixed = False
    for node in ast.walk(function):
        if isinstance(node, ast.arg) and node.arg == name:
            annotation = node.annotation
            if not isinstance(annotation, ast.Name | ast.Attribute):
                return False
            last = annotation.attr if isinstance(annotation, ast.Attribute) else annotation.id
            if last not in FIXED:
                return False
            fixed = True
        elif isinstance(node, ast.Assign) and any(_rebinds(part, name) for part in node.targets):
            if not _is_value(node.value):
                return False
            fixed = True
        elif _rebinds_otherwise(node, name):
            return False
    return fixed


def _rebinds_otherwise(node: ast.AST, name: str) -> bool:
    """Tell whether a node binds a name, and is neither an argument nor a plain assignment."""
    if isinstance(node, ast.Name | ast.arg):
        return False
    return _rebinds(node, name) or any(_rebinds(part, name) for part in _targets(node))


def _targets(node: ast.AST) -> list[ast.AST]:
    """Return what a node binds other than by a plain assignment."""
    targets: list[ast.AST] = []
    if isinstance(node, ast.With | ast.AsyncWith):
        targets = [item.optional_vars for item in node.items if item.optional_vars]
    elif isinstance(node, BINDING):
        targets = [node.target]
    return [part for target in targets for part in ast.walk(target)]


def _is_value(node: ast.expr) -> bool:
    """Tell whether an expression is a number or a string."""
    if isinstance(node, ast.Constant | ast.JoinedStr):
        return True
    if isinstance(node, ast.Attribute):
        return VALUE.fullmatch(node.attr) is not None
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PURE


def _stored_before(name: str, moment: Moment) -> bool:
    """Tell whether the row was written or read before, on every way to the callback."""
    function = moment.function
    if function is None or any(_deletes(node, name) for node in ast.walk(function)):
        return False
    body: list[ast.stmt] | None = function.body
    while body:
        around = next(node for node in body if _within(moment.statement, node))
        if any(_stores(node, name) for node in body[: body.index(around)]):
            return True
        body = next((part for part in _bodies(around) if _inside(moment.statement, part)), None)
    return False


def _bodies(statement: ast.stmt) -> list[list[ast.stmt]]:
    """Return the lists of statements inside of one."""
    lists = [value for _, value in ast.iter_fields(statement) if isinstance(value, list)]
    for part in [part for inner in lists for part in inner]:
        if isinstance(part, ast.ExceptHandler | ast.match_case):
            lists.append(part.body)
    return [part for part in lists if part and all(isinstance(node, ast.stmt) for node in part)]


def _deletes(node: ast.AST, name: str) -> bool:
    """Tell whether a node takes the key from a row."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr in ("delete", "adelete")
        and isinstance(node.value, ast.Name)
        and node.value.id == name
    )


def _stores(statement: ast.stmt, name: str) -> bool:
    """Tell whether a statement writes or reads the row of a name."""
    value = statement.value if isinstance(statement, ast.Assign | ast.Expr) else None
    call = value.value if isinstance(value, ast.Await) else value
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
        return False
    if call.func.attr.removeprefix("a") not in STORING and call.func.attr not in STORING:
        return False
    if isinstance(statement, ast.Expr):
        return call.func.attr in ("save", "asave") and ast.unparse(call.func.value) == name
    manager = ast.unparse(call.func.value)
    return "objects" in manager and _rebinds_in(statement, name)


def _rebinds_in(outer: ast.AST, name: str) -> bool:
    return any(_rebinds(node, name) for node in ast.walk(outer))


def _touched_after(name: str, moment: Moment) -> bool:
    """Tell whether anything but `return name` is done with a name after the statement."""
    function = moment.function
    if function is None:
        return True
    returned = {
        id(node.value) for node in ast.walk(function) if isinstance(node, ast.Return) and node.value
    }
    return any(
        isinstance(node, ast.Name)
        and node.id == name
        and _is_after(node, moment.statement)
        and id(node) not in returned
        for node in ast.walk(function)
    )


def _is_after(node: ast.AST, statement: ast.stmt) -> bool:
    """Tell whether a node stands behind a statement."""
    end = (statement.end_lineno or statement.lineno, statement.end_col_offset or 0)
    return (getattr(node, "lineno", 0), getattr(node, "col_offset", 0)) >= end
