"""What people have paused: that it waits is meant, that it is forgotten is not."""

from typing import Final

from outbox_relay.core.finding import Finding, ok, warn
from outbox_relay.operator import holds
from outbox_relay.operator.doctor.context import Context
from outbox_relay.operator.holds import Paused
from outbox_relay.operator.text import printable

NAME: Final = "paused"
#: The most pauses that are told of one by one.
MAX_SHOWN: Final = 10


def check(context: Context) -> list[Finding]:
    """A warning for each pause that is in force."""
    found = holds.paused(context.session)
    if not found:
        return [ok(NAME, "nothing")]
    more = len(found) - MAX_SHOWN
    rest = [warn(NAME, f"and {more} more", "outbox-relay routes")] if more > 0 else []
    return [*map(judge, found[:MAX_SHOWN]), *rest]


def judge(pause: Paused) -> Finding:
    """Who paused what, when and why, and what waits for it."""
    end = f"until {pause.until}" if pause.until else "with no end"
    reason = f": {printable(pause.reason[:200])}" if pause.reason else ""
    by = f"by {printable(pause.who)} since {pause.since}, {end}{reason}"
    what = "--all" if pause.kind == "all" else f"--{pause.kind} '{printable(pause.pattern)}'"
    return warn(
        NAME,
        f"{printable(pause.target)}, {pause.messages:,} message(s), {by}",
        f"when it may flow again: outbox-relay resume {what}",
    )
