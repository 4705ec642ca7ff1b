"""Compares what the shop's tables hold with what the customers remember, order by order."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from demo.customers import TABLES, Memory, Order
from demo.progress import Numbers
from shop.database import Connection

#: What tells several rows of one order apart, where it leads to several.
_DETAIL = {"reservation": "item", "notification": "channel"}


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of task: what was committed, and what became of it."""

    task: str
    committed: int
    executed: int
    lost: int
    twice: int
    rolled_back: int
    unexpected: int

    @property
    def holds(self) -> bool:
        """Whether committed and executed are the same."""
        return self.executed == self.committed and not (self.lost or self.twice or self.unexpected)


@dataclass(frozen=True, slots=True)
class Proof:
    """The whole comparison."""

    lines: tuple[Line, ...]
    final: Numbers

    @property
    def holds(self) -> bool:
        """Whether every number is right, and there was something to prove."""
        left = self.final.pending + self.final.scheduled + self.final.dead
        return left == 0 and self.lines[0].committed > 0 and all(line.holds for line in self.lines)

    def table(self) -> Table:
        """The comparison as people read it."""
        table = Table(title="What was committed, and what was executed", title_style="bold")
        table.add_column(no_wrap=True)
        for title in ("committed", "executed", "lost", "twice", "rolled back", "…executed"):
            table.add_column(title, justify="right", no_wrap=True)
        for line in (*self.lines, _sum(self.lines[1:])):
            values = (
                line.committed,
                line.executed,
                line.lost,
                line.twice,
                line.rolled_back,
                line.unexpected,
            )
            style = "" if line.holds else "bold red"
            table.add_row(line.task, *(f"{value:,}" for value in values), style=style)
            if line.task == "orders":
                table.add_section()
            if line is self.lines[-1]:
                table.add_section()
        return table

    def sentence(self) -> str:
        """The result in words."""
        if self.holds:
            return (
                "Every committed task was executed exactly once, no rolled back one ever; "
                f"{self.final.duplicates:,} duplicate deliveries were absorbed by the inbox."
            )
        left = f"{self.final.pending} pending, {self.final.scheduled} scheduled"
        return f"NOT proven: see the table; {left} and {self.final.dead} dead messages are left."


def compare(connection: Connection, memory: Memory, final: Numbers) -> Proof:
    """Count every order's rows."""
    tasks = [_line(connection, table, memory) for table in TABLES]
    return Proof((_orders(connection, memory), *tasks), final)


def _orders(connection: Connection, memory: Memory) -> Line:
    statement = "SELECT id FROM shop.orders WHERE id = ANY(%s)"
    found = {
        kind: len(connection.execute(statement, (_ids(orders),)).fetchall())
        for kind, orders in (("kept", memory.committed), ("taken", memory.rolled_back))
    }
    wanted = len(memory.committed)
    lost, rolled_back = wanted - found["kept"], len(memory.rolled_back)
    return Line("orders", wanted, found["kept"], lost, 0, rolled_back, found["taken"])


def _line(connection: Connection, table: str, memory: Memory) -> Line:
    found = _rows_per_order(connection, table, [*memory.committed, *memory.rolled_back])
    executed = lost = twice = unexpected = 0
    for order in memory.committed:
        wanted = order.effects[table]
        rows, distinct = found.get(order.id, (0, 0))
        if wanted:
            executed += rows
            lost += wanted - distinct
            twice += rows - distinct
        else:
            unexpected += rows
    unexpected += sum(found.get(order.id, (0, 0))[0] for order in memory.rolled_back)
    committed = sum(order.effects[table] for order in memory.committed)
    rolled_back = sum(order.effects[table] for order in memory.rolled_back)
    if table == "gift":  # the one task that is sent in a savepoint
        rolled_back += sum(order.taken_back for order in memory.committed + memory.rolled_back)
    return Line(table, committed, executed, lost, twice, rolled_back, unexpected)


def _rows_per_order(
    connection: Connection, table: str, orders: Iterable[Order]
) -> dict[str, tuple[int, int]]:
    """Rows of each order, and how many of them differ."""
    statement = (
        f"SELECT order_id, count(*), count(DISTINCT {_DETAIL.get(table, 'order_id')}) "
        f"FROM shop.{table} WHERE order_id = ANY(%s) GROUP BY order_id"
    )
    rows = connection.execute(statement.encode(), (_ids(orders),)).fetchall()
    return {str(order): (int(str(count)), int(str(distinct))) for order, count, distinct in rows}


def _ids(orders: Iterable[Order]) -> list[str]:
    return [order.id for order in orders]


def _sum(lines: Iterable[Line]) -> Line:
    columns = [
        (line.committed, line.executed, line.lost, line.twice, line.rolled_back, line.unexpected)
        for line in lines
    ]
    return Line("all tasks", *map(sum, zip(*columns, strict=True)))
