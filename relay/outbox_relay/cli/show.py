"""`show ID`: everything about a message, and where it stands; its body only with `--body`.

A task that Celery retried has several rows under one message id: all are shown, oldest first.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import DATABASE, INBOX
from outbox_relay.cli.output import print_json, print_line
from outbox_relay.cli.values import message_id
from outbox_relay.operator.life import Receipt, Step
from outbox_relay.operator.session import Session
from outbox_relay.operator.show import Whole, find, life_of, told_of
from outbox_relay.operator.text import printable
from outbox_relay.settings import Settings

#: Where values begin.
VALUES: Final = 18


def command() -> Command:
    """The command."""
    return Command("show", "everything about one message", _show, _arguments, (*DATABASE, INBOX))


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", type=message_id, help="message id, or id of the row")
    parser.add_argument("--body", action="store_true", help="with the payload")
    parser.add_argument("--json", action="store_true", help="for programs")


def _show(arguments: Namespace, settings: Settings) -> int:
    wanted: str = arguments.id
    with Session.open(settings) as session:
        found = find(session, wanted, body=arguments.body)
        told = {id_: told_of(session, settings, id_) for id_ in {m.message_id for m in found}}
        lives = [life_of(session, each, told[each.message_id]) for each in found]
    if not found:
        print(
            f"outbox-relay: no message has the id {wanted!r}: it was never committed, "
            "was discarded, or is older than the retention",
            file=sys.stderr,
        )
        return 1
    shown = [
        _fields(each, told[each.message_id].receipt, life, with_body=arguments.body)
        for each, life in zip(found, lives, strict=True)
    ]
    if arguments.json:
        print_json(shown)
        return 0
    for number, fields in enumerate(shown):
        if number:
            print()
        for name, value in fields.items():
            if name == "life":
                _print_life(value)
            elif name == "last_error" and value is not None:
                print_line(f"{name:<{VALUES}}{value}", VALUES)
            elif value is not None:
                text = json.dumps(value, default=str) if isinstance(value, dict | list) else value
                print(f"{name:<{VALUES}}{printable(text)}")
    return 0


def _print_life(life: list[dict[str, Any]]) -> None:
    """A line for each step."""
    for number, step in enumerate(life):
        at = step["at"]
        shown = f"{at:%Y-%m-%d %H:%M:%S}.{at:%f}"[:-3] if isinstance(at, datetime) else at
        head = "life" if number == 0 else ""
        print_line(f"{head:<{VALUES}}{shown:<24} {step['what']}", VALUES + 2)


def _fields(
    whole: Whole, receipt: Receipt | None, life: list[Step], *, with_body: bool
) -> dict[str, Any]:
    fields = asdict(whole)
    fields["life"] = [asdict(step) for step in life]
    fields["receipt"] = None if receipt is None else asdict(receipt)
    del fields["slot"]  # private: where the message is stored
    body = fields.pop("body")
    for shown in ("argsrepr", "kwargsrepr"):
        fields["headers"].pop(shown, None)
    if with_body:
        fields["body"] = _readable(body)
    return fields


def _readable(body: bytes) -> str:
    """The text of a text body, else hexadecimal digits, as Postgres writes bytea."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return rf"\x{body.hex()}"
