"""`routes`: what waits, by where it goes, what is paused, and what is limited."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Final

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import DATABASE
from outbox_relay.cli.output import print_json, print_table
from outbox_relay.operator.holds import Limited, Paused, Waiting, limited, paused, waiting
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings

PAUSED: Final = ("paused", "since", "until", "who", "set aside", "reason")
LIMITED: Final = ("limited", "a second", "burst", "since", "who", "set aside", "reason")


def command() -> Command:
    """The command."""
    return Command("routes", "what waits, by route, and what holds it", _routes, _json, DATABASE)


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _routes(arguments: Namespace, settings: Settings) -> int:
    with Session.open(settings) as session:
        routes, pauses, rates = waiting(session), paused(session), limited(session)
    if arguments.json:
        print_json(
            {
                "routes": [asdict(each) for each in routes],
                "paused": [asdict(each) for each in pauses],
                "rates": [asdict(each) for each in rates],
            }
        )
        return 0
    print_table(("route", "waiting", "held", "held by"), map(_route, routes))
    if pauses:
        print()
        print_table(PAUSED, map(_pause, pauses))
    if rates:
        print()
        print_table(LIMITED, map(_rate, rates))
    return 0


def _rate(each: Limited) -> tuple[object, ...]:
    rate, burst = f"{each.per_second:g}", f"{each.burst:g}"
    return each.target, rate, burst, each.since, each.who, f"{each.messages:,}", each.reason


def _route(route: Waiting) -> tuple[str, ...]:
    to = f"{route.exchange}/{route.routing_key}" if route.exchange else route.routing_key
    return to, f"{route.waiting:,}", f"{route.held:,}", ", ".join(route.held_by)


def _pause(each: Paused) -> tuple[object, ...]:
    until = each.until or "resumed"
    return each.target, each.since, until, each.who, f"{each.messages:,}", each.reason
