"""`status`: is it flowing, how far behind, and is anybody publishing. One look, or `--watch`."""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from rich.live import Live
from rich.table import Table

from outbox_relay.commands.command import Command
from outbox_relay.commands.flags import DATABASE
from outbox_relay.commands.output import how_long, print_json, print_table, table
from outbox_relay.commands.session import Session
from outbox_relay.errors import RelayError, SchemaError, StoreLost
from outbox_relay.settings import Settings
from outbox_relay.store import Stats

WATCH_SECONDS: Final = 2.0

STATS: Final = """
SELECT pending, scheduled, dead,
       extract(epoch FROM oldest_pending_age)::float8 AS oldest_pending_age
FROM {outbox}.stats
"""

#: Relays name themselves; the name is visible to every login, the rest to some (pg_read_all_stats).
RELAYS: Final = """
SELECT pid, usename AS login, host(client_addr) AS address,
       extract(epoch FROM clock_timestamp() - backend_start)::float8 AS connected_for
FROM pg_stat_activity
WHERE application_name = 'outbox-relay' AND datname = current_database()
ORDER BY pid
"""

#: An inspector may read the counts, and not this.
MAY_READ_RECEIPTS: Final = "SELECT has_table_privilege(%(receipt)s, 'SELECT')"

FLOW: Final = """
SELECT (SELECT extract(epoch FROM clock_timestamp() - max(sent_at))::float8
          FROM {outbox}.receipt) AS last_sent_age,
       (SELECT coalesce(sum(cardinality(ids)), 0)::bigint FROM {outbox}.receipt
         WHERE sent_at > now() - interval '1 minute') AS sent_last_minute
"""


@dataclass(frozen=True, slots=True)
class RelaySeen:
    """A relay's connection to the database."""

    pid: int
    login: str
    address: str | None
    connected_for: float | None


@dataclass(frozen=True, slots=True)
class Flow:
    """What was confirmed lately; None where this login may not know."""

    last_sent_age: float | None = None
    sent_last_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """All of it, at one moment."""

    stats: Stats
    flow: Flow
    relays: list[RelaySeen]

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            **asdict(self.stats),
            **asdict(self.flow),
            "relays_alive": len(self.relays),
            "relays": [asdict(relay) for relay in self.relays],
        }

    def as_rows(self) -> list[tuple[str, str]]:
        """For people."""
        stats, flow = self.stats, self.flow
        lately = "-" if flow.sent_last_minute is None else f"{flow.sent_last_minute:,}"
        last = "-" if flow.last_sent_age is None else f"{how_long(flow.last_sent_age)} ago"
        return [
            ("pending", f"{stats.pending:,}"),
            ("oldest pending", how_long(stats.oldest_pending_age) if stats.pending else "-"),
            ("scheduled", f"{stats.scheduled:,}"),
            ("dead", f"{stats.dead:,}"),
            ("sent in the last minute", lately),
            ("last sent", last),
            ("relays alive", str(len(self.relays))),
            *(("  relay", _describe(relay)) for relay in self.relays),
        ]


def command() -> Command:
    """The command."""
    return Command("status", "counts, lag, and the relays alive", _status, _arguments, DATABASE)


def read(session: Session) -> Status:
    """Look once."""
    stats = session.fetch(Stats, STATS)[0]
    allowed = session.value(MAY_READ_RECEIPTS, receipt=f'"{session.schema}".receipt')
    flow = session.fetch(Flow, FLOW)[0] if allowed else Flow()
    return Status(stats, flow, session.fetch(RelaySeen, RELAYS))


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
    with Session.open(settings) as session:
        show(read(session))
    return 0


def _watch(
    settings: Settings, show: Callable[[Status], None], say: Callable[[RelayError], None]
) -> int:
    """Until interrupted. A database that is away for a while is said, and looked for again."""
    try:
        while True:
            try:
                with Session.open(settings) as session:
                    while True:
                        show(read(session))
                        time.sleep(WATCH_SECONDS)
            except (StoreLost, SchemaError) as error:
                say(error)
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return 0


def _print_json(status: Status) -> None:
    print_json(status.as_json())


def _print_rows(settings: Settings, status: Status) -> None:
    print_table(("outbox", settings.schema), status.as_rows())
    sys.stdout.flush()


def _drawn(status: Status, settings: Settings) -> Table:
    return table(("outbox", settings.schema), status.as_rows())


def _describe(relay: RelaySeen) -> str:
    where = f" from {relay.address}" if relay.address else ""
    since = f", connected for {how_long(relay.connected_for)}" if relay.connected_for else ""
    return f"pid {relay.pid} as {relay.login}{where}{since}"
