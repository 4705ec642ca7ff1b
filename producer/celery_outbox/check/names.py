"""What the names of a module mean, as its imports and definitions tell."""

import ast


def dotted(node: ast.expr) -> str | None:
    """Return `a.b.c` for a chain of attributes on a name, else None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def last(node: ast.expr) -> str | None:
    """Return the last part of a name or of a chain of attributes, whatever it is a chain on."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """Return what a call gives under a name."""
    return next((given.value for given in call.keywords if given.arg == name), None)


def text(node: ast.expr | None) -> str | None:
    """Return the value of a literal string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


class Names:
    """The imports and the definitions of one module."""

    def __init__(self, tree: ast.Module, module: str, is_package: bool) -> None:
        self._known: dict[str, str] = {}
        for name in bound(tree.body):
            self._known[name] = f"{module}.{name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    self._known[name] = alias.name if alias.asname else name
            elif isinstance(node, ast.ImportFrom):
                origin = _origin(node, module, is_package)
                for alias in node.names:
                    self._known[alias.asname or alias.name] = f"{origin}.{alias.name}"
        self.modules = frozenset(self._known.values())

    def resolve(self, node: ast.expr) -> str | None:
        """Return the full name of what a name, or a chain of attributes, refers to."""
        name = dotted(node)
        if name is None:
            return None
        first, dot, rest = name.partition(".")
        known = self._known.get(first)
        return None if known is None else known + dot + rest


def bound(body: list[ast.stmt]) -> set[str]:
    """Return the names that the statements of a scope bind, without those of scopes inside."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        waiting.extend(ast.iter_child_nodes(node))
    return found


def _origin(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """Return the module that `from … import` names."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    up = node.level - 1 if is_package else node.level
    base = parts[: len(parts) - up] if up else parts
    return ".".join([*base, *([node.module] if node.module else [])])
