"""What every command is: a name, the settings it reads, its own arguments, and what it does."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from outbox_relay.settings import Settings
from outbox_relay.settings.setting import Setting


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `run` returns the exit code: 0 done, 1 found or left a problem.

    `run_many` does the same for every outbox of OUTBOX_DATABASES_FILE. A command without it is for
    one, which `--outbox` names.
    """

    name: str
    help: str
    run: Callable[[Namespace, Settings], int]
    arguments: Callable[[ArgumentParser], None] = lambda _: None
    settings: Sequence[Setting[Any]] = ()
    need_broker: bool = False
    run_many: Callable[[Namespace, Settings], int] | None = None
