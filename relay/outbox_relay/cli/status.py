"""`status`: is it flowing, how far behind, and is anybody publishing. Once, or with `--watch`."""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from typing import Final

from rich.live import Live
from rich.table import Table

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import DATABASE, INBOX
from outbox_relay.cli.output import print_fields, print_json, table
from outbox_relay.cli.status_many import status_many
from outbox_relay.core.holds import DEPTH, RATE
from outbox_relay.errors import RelayError, SchemaError, StoreLost
from outbox_relay.operator.holds import Paused
from outbox_relay.operator.session import Session
from outbox_relay.operator.status import RelaySeen, Status, read
from outbox_relay.operator.text import printable
from outbox_relay.operator.unknown import UnknownTask
from outbox_relay.settings import Settings
from outbox_relay.settings.durations import how_long

WATCH_SECONDS: Final = 2.0
#: All that status shows but what was sent, this role may see.
ROLE: Final = "outbox_inspector"
HIDDEN: Final = "not visible to this login: GRANT outbox_relay to one that may know"


def command() -> Command:
    """The command."""
    return Command(
        "status",
        "counts, lag, and the relays alive",
        _status,
        _arguments,
        (*DATABASE, INBOX),
        run_many=_status_many,
    )


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--watch", action="store_true", help=f"look again every {WATCH_SECONDS:g} seconds"
    )


def _status(arguments: Namespace, settings: Settings) -> int:
    if arguments.watch and not arguments.json and sys.stdout.isatty():
        with Live(auto_refresh=False) as live:
            return _watch(
                settings,
                lambda status: live.update(_drawn(status, settings), refresh=True),
                lambda error: live.update(str(error), refresh=True),
            )
    show = _print_json if arguments.json else partial(_print_rows, settings)
    if arguments.watch:
        return _watch(settings, show, lambda error: print(error, file=sys.stderr, flush=True))
    with Session.open(settings, role=ROLE) as session:
        show(read(session, settings))
    return 0


def _status_many(arguments: Namespace, settings: Settings) -> int:
    return status_many(arguments, settings, ROLE, WATCH_SECONDS)


def _watch(
    settings: Settings, show: Callable[[Status], None], say: Callable[[RelayError], None]
) -> int:
    """Show it until interrupted. While the database is away, say so, and connect again."""
    try:
        while True:
            try:
                with Session.open(settings, role=ROLE) as session:
                    while True:
                        show(read(session, settings))
                        time.sleep(WATCH_SECONDS)
            except (StoreLost, SchemaError) as error:
                say(error)
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return 0


def _print_json(status: Status) -> None:
    print_json(status.as_json())


def _print_rows(settings: Settings, status: Status) -> None:
    print_fields(("outbox", settings.schema), _rows(status))
    sys.stdout.flush()


def _drawn(status: Status, settings: Settings) -> Table:
    return table(("outbox", settings.schema), _rows(status))


def _describe(relay: RelaySeen) -> str:
    where = f" from {relay.address}" if relay.address else ""
    since = f", for {how_long(relay.connected_for)}" if relay.connected_for else ""
    return f"pid {relay.pid} as {relay.login}{where}{since}"


def _unknown(task: UnknownTask) -> str:
    name, queue = printable(task.task), printable(task.queue)
    return f"{task.messages:,} x {name} for queue {queue!r}"


def _paused(pause: Paused) -> str:
    reason = f": {printable(pause.reason)}" if pause.reason else ""
    what, who = printable(pause.target), printable(pause.who)
    return f"{what}, {pause.messages:,} message(s) set aside, by {who}{reason}"


def _rows(status: Status) -> list[tuple[str, str]]:
    """For people."""
    stats, flow = status.stats, status.flow
    lately = HIDDEN if flow.sent_last_minute is None else f"{flow.sent_last_minute:,}"
    last = "never" if flow.last_sent_age is None else f"{how_long(flow.last_sent_age)} ago"
    if flow.sent_last_minute is None:
        last = HIDDEN
    return [
        ("pending", f"{stats.pending:,}"),
        ("oldest pending", how_long(stats.oldest_pending_age) if stats.oldest_pending_age else "-"),
        ("scheduled", f"{stats.scheduled:,}"),
        ("dead", f"{stats.dead:,}"),
        ("expired", f"{stats.expired:,}"),
        ("sent in the last minute", lately),
        ("last sent", last),
        ("relays alive", str(len(status.relays))),
        *(("  relay", _describe(relay)) for relay in status.relays),
        *(("paused", _paused(pause)) for pause in status.paused),
        *(
            ("held", f"{each.messages:,} message(s) set aside by {printable(each.target)}")
            for each in status.held_back
            if each.target.startswith((DEPTH, RATE))
        ),
        *(("no worker knows", _unknown(task)) for task in status.unknown_tasks),
        *(("missing, unknown", _unknown(task)) for task in status.unknown_missing),
    ]
