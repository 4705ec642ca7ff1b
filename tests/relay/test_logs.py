"""The table in `logs` is every event that the relay logs, at the level that it says."""

import ast
from collections.abc import Iterator
from pathlib import Path

from outbox_relay import logs

SOURCES = Path(logs.__file__).parent
LEVELS = ("debug", "info", "warning", "error")
#: `Outage` says them in the name of its server.
SERVERS = ("broker", "database")


def documented() -> set[tuple[str, str]]:
    """Event and level, as the table has them."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in (logs.__doc__ or "").splitlines()
        if line.startswith("|")
    ][2:]
    pairs = set()
    for events, levels, _ in rows:
        names, each = events.split(", "), levels.split(", ")
        pairs |= set(zip(names, each * len(names) if len(each) == 1 else each, strict=True))
    return pairs


def logged() -> set[tuple[str, str]]:
    """Event and level of every call of a logger in the sources."""
    return {
        pair
        for source in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call)
        for pair in _events(node)
    }


def _events(call: ast.Call) -> Iterator[tuple[str, str]]:
    match call.func:
        case ast.Attribute(value=ast.Name(id="log"), attr=level) if level in LEVELS:
            event = call.args[0]
        case _:
            return
    if isinstance(event, ast.JoinedStr):
        said = ast.unparse(event)[2:-1]
        yield from ((said.replace("{self._server}", server), level) for server in SERVERS)
    else:
        assert isinstance(event, ast.Constant), ast.unparse(call)
        yield str(event.value), level


def test_the_table_is_complete() -> None:
    """What is logged and what is documented are the same."""
    assert documented() == logged()
