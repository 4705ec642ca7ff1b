"""`status` of all outboxes of OUTBOX_DATABASES_FILE: a line for each, the worst first."""

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Final

from outbox_relay.cli.output import on_terminal, print_json, print_line, print_table
from outbox_relay.cli.wrapping import some_of
from outbox_relay.many.overview import Seen, look
from outbox_relay.many.roster import Roster
from outbox_relay.operator.text import printable
from outbox_relay.settings import Settings
from outbox_relay.settings.durations import how_long

COLUMNS: Final = (
    "outbox",
    "pending",
    "oldest",
    "held",
    "scheduled",
    "dead",
    "sent/min",
    "served",
    "trouble",
)
#: Lines; of more, those furthest behind.
MAX_SHOWN: Final = 50


def status_many(arguments: Namespace, settings: Settings, role: str, watch_seconds: float) -> int:
    """Print them, once or again and again; the exit code."""
    roster = Roster(settings, need_broker=False)
    if not arguments.watch:
        return 1 if _print(roster, role, as_json=arguments.json) else 0
    try:
        while True:
            _print(roster, role, as_json=arguments.json)
            time.sleep(watch_seconds)
    except KeyboardInterrupt:
        return 0


def _print(roster: Roster, role: str, *, as_json: bool) -> int:
    """Print them as they are now; how many cannot be asked, databases included."""
    reading = roster.read()
    seen = look(reading.outboxes, role)
    for trouble in reading.trouble:
        print(f"outbox-relay: {printable(trouble)}", file=sys.stderr)
    if as_json:
        print_json({"outboxes": [each.as_json() for each in seen], "trouble": reading.trouble})
    else:
        _print_table(seen, complete=not reading.trouble)
    sys.stdout.flush()
    return sum(each.status is None for each in seen) + len(reading.trouble)


def _print_table(seen: Sequence[Seen], *, complete: bool) -> None:
    """A line for each. On a terminal, where sentences have no room in it, troubles stand below."""
    rows = [_row(each) for each in seen[:MAX_SHOWN]]
    terminal = on_terminal()
    shown = slice(-1 if terminal else None)
    print_table(COLUMNS[shown], [row[shown] for row in rows])
    for line in (*(_troubles(seen) if terminal else ()), *_summary(seen, complete=complete)):
        print_line(line)


def _troubles(seen: Sequence[Seen]) -> Iterator[str]:
    """Each once, with the names of those that have it."""
    names: dict[str, list[str]] = {}
    for each in seen:
        if each.trouble:
            names.setdefault(each.trouble, []).append(each.name)
    return (f"{some_of(of)}: {trouble}" for trouble, of in names.items())


def _row(seen: Seen) -> tuple[str, ...]:
    if (status := seen.status) is None:
        return (seen.name, *("?" for _ in COLUMNS[1:-1]), seen.trouble)
    stats, sent = status.stats, status.flow.sent_last_minute
    return (
        seen.name,
        f"{stats.pending:,}",
        how_long(stats.oldest_pending_age) if stats.pending else "-",
        f"{status.held:,}",
        f"{stats.scheduled:,}",
        f"{stats.dead:,}",
        "?" if sent is None else f"{sent:,}",
        "yes" if status.relays else "no",
        "",
    )


def _summary(seen: Sequence[Seen], *, complete: bool) -> Iterator[str]:
    known = [each.status.stats for each in seen if each.status]
    if len(seen) > MAX_SHOWN:
        yield f"and {len(seen) - MAX_SHOWN} more, less far behind: all are in --json"
    unknown = f"; {len(seen) - len(known)} cannot be asked"
    if not complete:
        unknown += ", and there may be more"
    elif len(known) == len(seen):
        unknown = ""
    count = "1 outbox" if len(seen) == 1 else f"{len(seen)} outboxes"
    yield (
        f"{count}: {sum(each.pending for each in known):,} pending, "
        f"{sum(each.scheduled for each in known):,} scheduled, "
        f"{sum(each.dead for each in known):,} dead{unknown}"
    )
