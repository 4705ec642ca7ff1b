"""Who holds the database back: old transactions, by name; and whose clock is wrong.

While a transaction that can see the past is open, vacuum removes nothing newer: the hot tables of
the outbox grow, and every claim wades through what is dead.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.operator.doctor.context import Context
from outbox_relay.settings.durations import how_long

NAME: Final = "long transactions"
#: From when on an open transaction is worth a warning, and from when on it is a problem: seconds.
WARN_AFTER: Final = 30.0
PROBLEM_AFTER: Final = 300.0
#: Celery's etas and expiries are written by other machines' clocks.
SKEW_WARN: Final = 1.0
SKEW_PROBLEM: Final = 30.0

TRANSACTIONS: Final = """
SELECT pid::text AS id, coalesce(usename::text, '?') AS login,
       coalesce(nullif(application_name, ''), '-') AS application, state,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age,
       backend_xmin IS NOT NULL OR backend_xid IS NOT NULL AS holds,
       'pid ' || pid AS what, format('SELECT pg_terminate_backend(%%s)', pid) AS remedy
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database() AND xact_start IS NOT NULL
  AND backend_type <> 'autovacuum worker'
UNION ALL
SELECT gid, owner::text, '-', 'prepared', extract(epoch FROM clock_timestamp() - prepared)::float8,
       true, 'prepared transaction ' || quote_literal(gid),
       format('ROLLBACK PREPARED %%L (or COMMIT PREPARED)', gid)
FROM pg_prepared_xacts WHERE database = current_database()
ORDER BY age DESC LIMIT 20
"""
#: Replication keeps the past as well, whoever reads it.
SLOTS: Final = """
SELECT slot_name::text AS name, active, age(xmin)::bigint AS transactions
FROM pg_replication_slots WHERE xmin IS NOT NULL AND age(xmin) > 100000 ORDER BY 3 DESC
"""
MAY_SEE: Final = "SELECT pg_has_role('pg_read_all_stats', 'USAGE')"
CLOCK: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction; `holds` where vacuum must wait for it."""

    id: str
    login: str
    application: str
    state: str | None
    age: float
    holds: bool
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot that keeps old rows."""

    name: str
    active: bool
    transactions: int


def check_transactions(context: Context) -> list[Finding]:
    """Everything that holds the horizon, named."""
    session = context.session
    findings = judge_transactions(session.fetch(Transaction, TRANSACTIONS))
    findings += [_slot(slot) for slot in session.fetch(Slot, SLOTS)]
    if not session.value(MAY_SEE):
        findings.append(
            warn(
                NAME,
                "transactions of other logins are hidden from this one: not checked",
                "GRANT pg_read_all_stats to this login",
            )
        )
    return findings


def judge_transactions(transactions: Sequence[Transaction]) -> list[Finding]:
    """One finding for each that is old enough; otherwise the oldest is named all the same."""
    holding = [each for each in transactions if each.holds]
    old = [each for each in holding if each.age >= WARN_AFTER]
    if not old:
        oldest = f"; the oldest is {_name(holding[0])}" if holding else ""
        return [ok(NAME, f"none older than {how_long(WARN_AFTER)}{oldest}")]
    return [
        (problem if each.age >= PROBLEM_AFTER else warn)(
            NAME,
            f"{_name(each)} holds the horizon: vacuum cannot clean up behind it",
            f"let its application commit, or end it: {each.remedy}",
        )
        for each in old
    ]


def _name(transaction: Transaction) -> str:
    t = transaction
    return (
        f"{t.what}, user {t.login}, application {t.application}, "
        f"{t.state or '?'}, open for {how_long(t.age)}"
    )


def _slot(slot: Slot) -> Finding:
    idle = "" if slot.active else ", which nobody reads"
    return warn(
        NAME,
        f"replication slot {slot.name!r}{idle}, holds the horizon {slot.transactions:,} "
        "transactions back",
        f"let its reader catch up, or: SELECT pg_drop_replication_slot('{slot.name}')",
    )


def check_clock(context: Context, clock: Callable[[], float] = time.time) -> list[Finding]:
    """The clock of this machine against the database's."""
    before = clock()
    theirs = context.session.value(CLOCK)
    after = clock()
    return [judge_clock((before + after) / 2 - theirs, after - before)]


def judge_clock(skew: float, uncertainty: float) -> Finding:
    """`skew`: how far this machine is ahead, in seconds, give or take half the round trip."""
    name = "clocks"
    if abs(skew) < SKEW_WARN + uncertainty / 2:
        return ok(name, "this machine and the database agree to a second")
    which = "ahead of" if skew > 0 else "behind"
    return (problem if abs(skew) >= SKEW_PROBLEM else warn)(
        name,
        f"this machine's clock is {how_long(abs(skew))} {which} the database's: clock skew makes "
        "etas come early or late and messages expire unsent",
        "run NTP (chrony, systemd-timesyncd) on both machines, and on the producers'",
    )
