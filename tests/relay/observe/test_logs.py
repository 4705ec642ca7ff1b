"""The table in `logs` is every event that the relay logs, at the level that it says."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outbox_relay.observe import logs
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until

SOURCES = Path(logs.__file__).parents[1]
LEVELS = ("debug", "info", "warning", "error")
#: `Outage` says them in the name of its server.
SERVERS = ("broker", "database", "standbys")


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


def test_no_payload_is_logged(relay: RelayFactory, database: str, broker: Broker) -> None:
    """Not even of what is refused, and not at the lowest level."""
    secret = "4111-1111-1111-1111"
    tasks = '[{"kind": "queue", "name": "celery", "routing_key": "celery"}]'
    headers = f'{{"task": "shop.bill", "argsrepr": "({secret},)", "kwargsrepr": "{secret}"}}'
    columns: dict[str, Any] = {"body": f"[[{secret}]]".encode(), "headers": headers}
    commit_rows(database, 3, declare=tasks, **columns)
    commit_rows(database, routing_key="nowhere", **columns)
    commit_rows(database, exchange="nowhere", **columns)
    commit_rows(database, properties=f'{{"priority": "{secret}"}}', **columns)
    commit_rows(database, properties=f'{{"timestamp": "{secret}"}}', **columns)
    commit_rows(database, **{**columns, "headers": f'{{"{"h" * 300}": "{secret}"}}'})
    commit_rows(database, declare=f'[{{"kind": "{secret}"}}]', **columns)
    running = relay(
        OUTBOX_DATABASE_URL=database,
        OUTBOX_BROKER_URL=broker.url,
        OUTBOX_MAX_ATTEMPTS="1",
        OUTBOX_LOG_LEVEL="debug",
    )
    wait_until(lambda: states(database)["pending"] == 0, 60, "everything to be sent or given up")
    assert running.stop() == 0

    assert running.events("messages_refused")
    assert running.events("messages_dead")
    assert running.events("batch")
    assert secret not in running.output()
