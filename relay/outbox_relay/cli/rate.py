"""`rate`: at most so many messages a second go to a queue or an exchange, of a task, or in all."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import DATABASE
from outbox_relay.cli.pause import add_target, target
from outbox_relay.operator.holds import set_rate
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings


def command() -> Command:
    """The command."""
    return Command(
        "rate",
        "limit a queue, an exchange or a task to so many a second",
        _rate,
        _arguments,
        DATABASE,
    )


def _arguments(parser: ArgumentParser) -> None:
    add_target(parser)
    rate = parser.add_mutually_exclusive_group(required=True)
    rate.add_argument(
        "--per-second", type=_number, metavar="N", help="5, or 0.1 for one every ten seconds"
    )
    rate.add_argument("--off", action="store_true", help="no limit any more")
    parser.add_argument(
        "--burst", type=_number, metavar="N", help="how many at once after a while without any"
    )


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1e9:
        raise ArgumentTypeError(f"{text!r}: give a number above 0, such as 5 or 0.1")
    return number


def _rate(arguments: Namespace, settings: Settings) -> int:
    with Session.open(settings) as session:
        made = set_rate(
            session, target(arguments), arguments.reason, arguments.per_second, arguments.burst
        )
    if made is None:
        print("there was no such limit: see outbox-relay routes")
        return 1
    print(f"{made}: {'no limit' if arguments.off else f'{arguments.per_second:g} a second'}")
    return 0
