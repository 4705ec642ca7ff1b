"""`retry` and `discard`: by id, or everything dead, or everything dead of one task.

Both go through the functions of the schema, a thousand messages to a transaction, and are safe
beside running relays: what a relay holds at this moment is left alone.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from outbox_relay.cli.command import Command
from outbox_relay.cli.confirm import add_yes, agreed
from outbox_relay.cli.flags import DATABASE
from outbox_relay.cli.values import message_id
from outbox_relay.errors import SettingsError
from outbox_relay.operator import queries
from outbox_relay.operator.manage import apply, dead_pages, resolve
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Verb:
    """One of the two: what it asks the schema, and the words for it."""

    name: str
    help: str
    query: str
    done: str  # what is said of each message it changed
    unable: str  # and of each it did not
    destructive: bool = False


RETRY: Final = Verb(
    "retry",
    "dead messages are published again",
    queries.RETRY,
    "pending again",
    "not dead",
)
DISCARD: Final = Verb(
    "discard",
    "dead messages, or pending ones by their id, are deleted",
    queries.DISCARD,
    "deleted",
    "neither dead nor pending, or being published at this moment",
    destructive=True,
)


def commands() -> list[Command]:
    """Both commands."""
    return [
        Command(v.name, v.help, partial(_manage, v), partial(_arguments, v), DATABASE)
        for v in (RETRY, DISCARD)
    ]


def _arguments(verb: Verb, parser: ArgumentParser) -> None:
    parser.add_argument(
        "ids", metavar="ID", nargs="*", type=message_id, help="message ids, or ids of rows"
    )
    parser.add_argument("--task", metavar="NAME", help="every dead message of this task")
    parser.add_argument("--all", action="store_true", help="every dead message")
    if verb.destructive:
        add_yes(parser)
    else:
        parser.add_argument("--yes", action="store_true", help="accepted; nothing is asked")


def _manage(verb: Verb, arguments: Namespace, settings: Settings) -> int:
    if sum(map(bool, (arguments.ids, arguments.task, arguments.all))) != 1:
        raise SettingsError(f"{verb.name}: give either ids, or --task NAME, or --all")
    which = _which(arguments)
    if verb.destructive and not agreed(f"Delete {which} for good?", yes=arguments.yes):
        return 1
    with Session.open(settings) as session:
        if arguments.ids:
            return _by_id(verb, session, arguments.ids)
        return _the_dead(verb, session, arguments.task)


def _which(arguments: Namespace) -> str:
    if arguments.ids:
        return f"{len(arguments.ids)} message(s)"
    return f"every dead message of {arguments.task!r}" if arguments.task else "every dead message"


def _by_id(verb: Verb, session: Session, ids: Sequence[str]) -> int:
    known = resolve(session, ids)
    changed = apply(session, verb.query, list(dict.fromkeys(known.values())))
    for given in dict.fromkeys(ids):
        if given not in known:
            print(f"outbox-relay: no message has the id {given!r}", file=sys.stderr)
        elif not changed[known[given]]:
            print(f"outbox-relay: {given} is {verb.unable}", file=sys.stderr)
    print(f"{sum(changed.values())} {verb.done}")
    return 0 if all(given in known and changed[known[given]] for given in ids) else 1


def _the_dead(verb: Verb, session: Session, task: str | None) -> int:
    total = 0
    for page in dead_pages(session, task):
        changed = apply(session, verb.query, list(dict.fromkeys(dead.message_id for dead in page)))
        total += sum(changed.values())
    print(f"{total} {verb.done}")
    return 0
