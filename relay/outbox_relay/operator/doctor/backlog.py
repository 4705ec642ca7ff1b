"""Is it flowing: relays, progress, what was refused and what was given up, with the reasons."""

from dataclasses import dataclass
from typing import Final

from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.operator.doctor.context import Context
from outbox_relay.operator.status import Status, read
from outbox_relay.operator.text import printable
from outbox_relay.settings.durations import how_long

#: Without a confirm for so long while messages wait, it is not flowing: seconds.
STALLED_AFTER: Final = 60.0
LATE_AFTER: Final = 300.0
#: If so much of what is pending is held, nothing else may be: both numbers are of samples.
NEARLY_ALL: Final = 0.9

#: The newest thousand are enough to see why; what is held on purpose is no refusal.
REASONS: Final = """
SELECT m.task, coalesce(p.last_error, '(no reason kept)') AS reason, count(*) AS messages,
       max(m.message_id) AS example
FROM (SELECT id, slot, last_error, route FROM {outbox}.parked
       WHERE state = %(state)s ORDER BY id DESC LIMIT 1000) p
JOIN {outbox}.message m ON m.id = p.id AND m.slot = p.slot
WHERE left(p.route, 1) IS DISTINCT FROM chr(30)
GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 3
"""


@dataclass(frozen=True, slots=True)
class Why:
    """A reason, and how many of the newest messages it stopped."""

    task: str
    reason: str
    messages: int
    example: str

    def __str__(self) -> str:
        reason = printable(self.reason[:200])
        return f"{self.messages} x {printable(self.task)}: {reason} (such as {self.example})"


def check(context: Context) -> list[Finding]:
    """Relays, progress, refusals and dead letters."""
    session = context.session
    status = read(session, context.settings)
    refused = session.fetch(Why, REASONS, state="retry")
    dead = session.fetch(Why, REASONS, state="dead")
    return [judge_relays(status), judge_progress(status), *_refused(refused), _dead(status, dead)]


def judge_relays(status: Status) -> Finding:
    """Somebody must be there to publish."""
    name, pending = "relays", status.stats.pending
    if status.relays:
        return ok(name, f"{len(status.relays)} connected")
    start = "start one: outbox-relay run; if one should be running, look at its log"
    if pending:
        return problem(name, f"no relay is connected, and {pending:,} message(s) wait", start)
    return warn(name, "no relay is connected", start)


def judge_progress(status: Status) -> Finding:
    """Whether the oldest message moves."""
    name, stats = "progress", status.stats
    if not stats.pending:
        return ok(name, "nothing is pending")
    text = f"{stats.pending:,} pending"
    if stats.oldest_pending_age > 0:
        text += f", the oldest for {how_long(stats.oldest_pending_age)}"
    if status.held:
        text += f"; {status.held:,} of them are held on purpose"
    if status.held >= NEARLY_ALL * stats.pending:
        return ok(name, text)
    last = status.flow.last_sent_age
    if status.relays and stats.oldest_pending_age > STALLED_AFTER:
        if last is None or last > STALLED_AFTER:
            since = "ever" if last is None else f"for {how_long(last)}"
            return problem(
                name,
                f"{text}; nothing was confirmed {since}, though a relay is connected",
                "see the broker's findings below, and the relay's log",
            )
        if stats.oldest_pending_age > LATE_AFTER:
            return warn(
                name,
                f"{text}: it flows, but lags",
                "start more relays, or see outbox-relay pending for what is stuck at the top",
            )
    return ok(name, text)


def _refused(reasons: list[Why]) -> list[Finding]:
    if not reasons:
        return []
    return [
        warn(
            "refused messages",
            f"the broker refused, and will be asked again: {'; '.join(map(str, reasons))}",
            "fix what the reason names; the relay tries again by itself",
        )
    ]


def _dead(status: Status, reasons: list[Why]) -> Finding:
    name, count = "dead letters", status.stats.dead
    if not count:
        return ok(name, "none")
    return problem(
        name,
        f"{count:,} dead; the newest: {'; '.join(map(str, reasons))}",
        "outbox-relay show ID tells all; fix the cause, then: outbox-relay retry --all (or "
        "--task NAME); or outbox-relay discard ID",
    )
