"""Shows what happens: a live panel under a scrolling story, or plain lines without a terminal."""

import textwrap
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from demo.progress import Numbers

_PLAIN_SECONDS = 2.0
_BAR = 40
_INDENT = " " * len("  0.0 s  ")


@dataclass(slots=True)
class State:
    """What the numbers alone do not tell."""

    broker: str = "RabbitMQ"
    broker_up: bool = True
    relay_up: bool = True
    committed: int = 0
    rolled_back: int = 0


@dataclass(slots=True)
class Screen:
    """Where the demo speaks."""

    console: Console = field(default_factory=Console)
    _started: float = field(default_factory=monotonic)
    _live: Live | None = None
    _spoke: float = 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Tell an event; it stays on the screen."""
        elapsed = monotonic() - self._started
        line = f"{elapsed:5.1f} s  {text}"
        if self.console.is_terminal:
            line = textwrap.fill(
                line,
                self.console.width,
                subsequent_indent=_INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
        self.console.print(line, style=style, highlight=False, soft_wrap=True)

    def show(self, numbers: Numbers, state: State) -> None:
        """Show the numbers of this moment."""
        if self._live is not None:
            self._live.update(_panel(numbers, state))
        elif monotonic() - self._spoke >= _PLAIN_SECONDS:
            self._spoke = monotonic()
            self.say("  " + _line(numbers, state))


def _line(numbers: Numbers, state: State) -> str:
    return (
        f"orders {state.committed} (+{state.rolled_back} rolled back) · "
        f"pending {numbers.pending} · scheduled {numbers.scheduled} · sent {numbers.sent} · "
        f"dead {numbers.dead} · executed {numbers.executed} · duplicates {numbers.duplicates}"
    )


def _panel(numbers: Numbers, state: State) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    grid.add_row(
        "orders",
        f"[green]{state.committed:,} committed[/]   {state.rolled_back:,} rolled back",
    )
    bar = "█" * min(_BAR, numbers.pending // 10)
    grid.add_row(
        "outbox",
        f"{numbers.sent:,} sent   {numbers.scheduled:,} scheduled   {numbers.dead:,} dead   "
        f"[yellow]{numbers.pending:,} pending {bar}[/]",
    )
    grid.add_row(
        "tasks",
        f"[green]{numbers.executed:,} executed[/]   {numbers.duplicates:,} duplicates absorbed",
    )
    grid.add_row(
        "servers", f"{_lamp(state.broker, state.broker_up)}   {_lamp('relay', state.relay_up)}"
    )
    return Panel(grid, title="celery-outbox", border_style="dim")


def _lamp(name: str, is_up: bool) -> str:
    return f"[green]●[/] {name}" if is_up else f"[bold red]✗ {name} killed[/]"
