"""What every command is: a name, the variables it reads, its own arguments, and what it does."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outbox_relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `run` returns the exit code: 0 done, 1 found or left a problem."""

    name: str
    help: str
    run: Callable[[Namespace, Settings], int]
    arguments: Callable[[ArgumentParser], None] = lambda _: None
    variables: Sequence[str] = ()
    need_broker: bool = False
