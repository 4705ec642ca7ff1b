"""Whether the hot tables have stayed small: their size should follow their rows, not their past."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.operator.doctor.context import Context

NAME: Final = "bloat"
#: A row of `ready` with its half-empty page, or of `parked` with its error, in bytes.
ROW_BYTES: Final = 200
#: Below this size nobody notices.
SMALL_BYTES: Final = 16 << 20
LARGE_BYTES: Final = 32 << 20
#: How many times larger than its rows a table may be.
SLACK: Final = 5

SIZES: Final = """
SELECT c.relname::text AS name, pg_relation_size(c.oid) AS bytes,
       {outbox}.rough_count(c.oid::regclass, 'true') AS rows,
       coalesce(s.n_dead_tup, 0) AS dead, s.last_autovacuum::text AS vacuumed,
       coalesce(array_to_string(c.reloptions, ' ') ~ 'autovacuum_enabled=(off|false|no|0)', false)
           AS exempt
FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.oid IN (format('%%I.ready', %(schema)s::text)::regclass,
                format('%%I.parked', %(schema)s::text)::regclass,
                format('%%I.lane', %(schema)s::text)::regclass)
ORDER BY 1
"""
AUTOVACUUM: Final = "SELECT current_setting('autovacuum')::boolean"


@dataclass(frozen=True, slots=True)
class Size:
    """A table's size, and what it should be."""

    name: str
    bytes: int
    rows: int
    dead: int
    vacuumed: str | None
    exempt: bool

    @property
    def bloated(self) -> bool:
        """Whether it is much larger than its rows."""
        return self.bytes > max(SMALL_BYTES, SLACK * ROW_BYTES * self.rows)


def check(context: Context) -> list[Finding]:
    """The hot tables, and whether anything cleans them."""
    session = context.session
    sizes = session.fetch(Size, SIZES, schema=session.schema)
    findings = judge(sizes, session.schema)
    if not session.value(AUTOVACUUM):
        findings.append(
            problem(
                "autovacuum",
                "autovacuum is off for the whole server",
                "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()",
            )
        )
    return findings


def judge(sizes: Sequence[Size], schema: str) -> list[Finding]:
    """One finding for each bloated or neglected table."""
    findings = [_bloated(size, schema) for size in sizes if size.bloated]
    findings += [
        warn(
            "autovacuum",
            f"autovacuum is switched off for {schema}.{size.name}",
            f"ALTER TABLE {schema}.{size.name} RESET (autovacuum_enabled)",
        )
        for size in sizes
        if size.exempt
    ]
    return findings or [ok(NAME, "the hot tables are as small as their rows")]


def _bloated(size: Size, schema: str) -> Finding:
    vacuumed = f"last vacuumed {size.vacuumed}" if size.vacuumed else "never vacuumed by itself"
    return (problem if size.bytes >= LARGE_BYTES else warn)(
        NAME,
        f"{schema}.{size.name} is bloated: {size.bytes >> 20} MB for about {size.rows:,} rows "
        f"({size.dead:,} dead, {vacuumed})",
        f"end what holds the horizon (see long transactions), then: VACUUM {schema}.{size.name}; "
        f"if it stays large, in a quiet minute: VACUUM FULL {schema}.{size.name}",
    )
