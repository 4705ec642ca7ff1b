"""`retry`, `discard` and `reschedule`: by id; the first two also everything dead, or of one task.

All go through one function of the schema, a thousand messages to a transaction, which records who
did it and why (`outbox.action`). They are safe beside running relays: what a relay holds at this
moment is left alone.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from outbox_relay.cli.command import Command
from outbox_relay.cli.confirm import add_why, add_yes, agreed
from outbox_relay.cli.flags import DATABASE
from outbox_relay.cli.values import later, message_id
from outbox_relay.errors import SettingsError
from outbox_relay.operator import queries
from outbox_relay.operator.manage import Order, act, by_message, dead_pages, resolve, rows_of
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Verb:
    """One of them: the actions it asks the schema for, and the words for it."""

    name: str
    help: str
    actions: tuple[str, ...]  # one after another: each leaves alone what is not its own
    done: str  # what is said of each message it changed
    unable: str  # and of each it did not
    destructive: bool = False
    by_task: bool = True


RETRY: Final = Verb(
    "retry",
    "dead messages are published again",
    ("retry",),
    "pending again",
    "not dead",
)
DISCARD: Final = Verb(
    "discard",
    "dead messages, or pending ones by their id, are deleted",
    ("discard", "cancel"),
    "deleted",
    "neither dead nor pending, or being published at this moment",
    destructive=True,
)
RESCHEDULE: Final = Verb(
    "reschedule",
    "pending or scheduled messages are published at another time",
    ("reschedule",),
    "rescheduled",
    "neither pending nor scheduled, or in its lane, or being published at this moment",
    by_task=False,
)


def commands() -> list[Command]:
    """The commands."""
    return [
        Command(v.name, v.help, partial(_manage, v), partial(_arguments, v), DATABASE)
        for v in (RETRY, DISCARD, RESCHEDULE)
    ]


def _arguments(verb: Verb, parser: ArgumentParser) -> None:
    parser.add_argument(
        "ids", metavar="ID", nargs="*", type=message_id, help="message ids, or ids of rows"
    )
    if verb.by_task:
        parser.add_argument("--task", metavar="NAME", help="every dead message of this task")
        parser.add_argument("--all", action="store_true", help="every dead message")
    else:
        parser.set_defaults(task=None, all=False)
        parser.add_argument(
            "--at",
            type=later,
            required=True,
            help="2h for in two hours, 0s for at once, or 2030-01-31T08:00:00Z (UTC where no "
            "offset is given)",
        )
    add_why(parser)
    if verb.destructive:
        add_yes(parser)
    else:
        parser.add_argument("--yes", action="store_true", help="accepted; nothing is asked")


def _manage(verb: Verb, arguments: Namespace, settings: Settings) -> int:
    if sum(map(bool, (arguments.ids, arguments.task, arguments.all))) != 1:
        ways = "either ids, or --task NAME, or --all" if verb.by_task else "ids"
        raise SettingsError(f"{verb.name}: give {ways}")
    which = _which(arguments)
    if verb.destructive and not agreed(f"Delete {which} for good?", yes=arguments.yes):
        return 1
    with Session.open(settings) as session:
        orders = _orders(verb, arguments, session)
        if arguments.ids:
            return _by_id(verb, session, orders, arguments.ids)
        return _the_dead(verb, session, orders[0], arguments.task)


def _orders(verb: Verb, arguments: Namespace, session: Session) -> list[Order]:
    at = None if verb.by_task else arguments.at.after(session.value(queries.NOW))
    return [Order(action, arguments.why, at) for action in verb.actions]


def _which(arguments: Namespace) -> str:
    if arguments.ids:
        return f"{len(arguments.ids)} message(s)"
    return f"every dead message of {arguments.task!r}" if arguments.task else "every dead message"


def _by_id(verb: Verb, session: Session, orders: Sequence[Order], ids: Sequence[str]) -> int:
    known = resolve(session, ids)
    rows = rows_of(session, list(dict.fromkeys(known.values())))
    changed: Counter[str] = Counter()
    for order in orders:
        changed += by_message(rows, act(session, order, rows))
    for given in dict.fromkeys(ids):
        if given not in known:
            print(f"outbox-relay: no message has the id {given!r}", file=sys.stderr)
        elif not changed[known[given]]:
            print(f"outbox-relay: {given} is {verb.unable}", file=sys.stderr)
    print(f"{changed.total()} {verb.done}")
    return 0 if all(given in known and changed[known[given]] for given in ids) else 1


def _the_dead(verb: Verb, session: Session, order: Order, task: str | None) -> int:
    total = sum(len(act(session, order, page)) for page in dead_pages(session, task))
    print(f"{total} {verb.done}")
    return 0
