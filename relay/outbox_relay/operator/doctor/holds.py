"""What is held on purpose: that it waits is meant, that it is forgotten is not."""

from typing import Final

from outbox_relay.core.finding import Finding, ok, warn
from outbox_relay.core.holds import DEPTH, RATE
from outbox_relay.operator import holds
from outbox_relay.operator.doctor.context import Context
from outbox_relay.operator.holds import Held, Paused
from outbox_relay.operator.text import printable

NAME: Final = "paused"
HELD: Final = "held"
#: The most pauses that are told of one by one.
MAX_SHOWN: Final = 10


def check(context: Context) -> list[Finding]:
    """A warning for each pause that is in force and each full queue; what waits for its turn."""
    found = holds.paused(context.session)
    more = len(found) - MAX_SHOWN
    rest = [warn(NAME, f"and {more} more", "outbox-relay routes")] if more > 0 else []
    pauses = [*map(judge, found[:MAX_SHOWN]), *rest] or [ok(NAME, "nothing")]
    others = [e for e in holds.held(context.session) if e.target.startswith((DEPTH, RATE))]
    return [*pauses, *map(judge_held, others[:MAX_SHOWN])]


def judge_held(held: Held) -> Finding:
    """What waits for room in its queue, or for its turn."""
    target, messages = printable(held.target), f"{held.messages:,} message(s)"
    if held.target.startswith(RATE):
        return ok(HELD, f"{messages} wait for their turn: {target.removeprefix(RATE)} is limited")
    return warn(
        HELD,
        f"{messages} wait for room in queue {target.removeprefix(DEPTH)!r} "
        "(OUTBOX_MAX_DEPTH, or the memory of Redis)",
        "more workers for that queue; see outbox_queue_depth and its consumers",
    )


def judge(pause: Paused) -> Finding:
    """Who paused what, when and why, and what waits for it."""
    end = f"until {printable(pause.until)}" if pause.until else "with no end"
    reason = f": {printable(pause.reason[:200])}" if pause.reason else ""
    by = f"by {printable(pause.who)} since {printable(pause.since)}, {end}{reason}"
    what = "--all" if pause.kind == "all" else f"--{pause.kind} '{printable(pause.pattern)}'"
    return warn(
        NAME,
        f"{printable(pause.target)}, {pause.messages:,} message(s) set aside, {by}",
        f"when it may flow again: outbox-relay resume {what}",
    )
