"""`routes`: what waits, by where it goes, and what is paused."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import DATABASE
from outbox_relay.cli.output import print_json, print_table
from outbox_relay.operator.holds import Paused, Waiting, paused, waiting
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings


def command() -> Command:
    """The command."""
    return Command("routes", "what waits, by route, and what is paused", _routes, _json, DATABASE)


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _routes(arguments: Namespace, settings: Settings) -> int:
    with Session.open(settings) as session:
        routes, pauses = waiting(session), paused(session)
    if arguments.json:
        print_json({"routes": list(map(asdict, routes)), "paused": list(map(asdict, pauses))})
        return 0
    print_table(("route", "waiting", "held", "held by"), map(_route, routes))
    if pauses:
        print()
        columns = ("paused", "since", "until", "who", "messages", "reason")
        print_table(columns, map(_pause, pauses))
    return 0


def _route(route: Waiting) -> tuple[str, ...]:
    to = f"{route.exchange}/{route.routing_key}" if route.exchange else route.routing_key
    return to, f"{route.waiting:,}", f"{route.held:,}", ", ".join(route.held_by)


def _pause(each: Paused) -> tuple[object, ...]:
    until = each.until or "resumed"
    return each.target, each.since, until, each.who, f"{each.messages:,}", each.reason
