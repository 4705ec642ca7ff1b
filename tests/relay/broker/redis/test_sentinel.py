"""Sentinel: the relay finds the primary, and follows it when it moves."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from servers import Valkey
from servers.ports import free_port
from servers.valkey import find_executable
from tests.fixtures.programs import Program, RelayFactory
from tests.fixtures.rows import insert_rows, states
from tests.fixtures.waiting import wait_until

#: Replicas find a lost primary's successor after so many milliseconds.
QUICKLY = 500


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Valkey]]:
    """A primary and two replicas that could each take its place."""
    with ExitStack() as stack:
        started: list[Valkey] = []
        for name in ("one", "two", "three"):
            server = Valkey(tmp_path / name)
            if started:
                server.password = started[0].password
                server.settings["replicaof"] = f"127.0.0.1 {started[0].port}"
            server.settings |= {"masterauth": server.password, "repl-diskless-sync-delay": "0"}
            stack.callback(server.discard)
            started.append(server.start())
        with redis.Redis.from_url(started[0].url) as client:
            wait_until(lambda: client.wait(2, 100) == 2, 20, "both replicas in step")
        yield started


@contextmanager
def sentinel(primary: Valkey, folder: Path) -> Iterator[int]:
    """A sentinel that watches the primary; its port."""
    port = free_port()
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {folder}\n"
        f"sentinel monitor shop 127.0.0.1 {primary.port} 1\n"
        f"sentinel auth-pass shop {primary.password}\n"
        f"sentinel down-after-milliseconds shop {QUICKLY}\n"
        "sentinel failover-timeout shop 3000\n"
    )
    program = Program([str(find_executable()), str(configuration), "--sentinel"], folder, {})
    try:
        wait_until(lambda: _knows_both_replicas(port), 20, "a sentinel that knows them all")
        yield port
    finally:
        program.kill()


def _client(port: int) -> Any:
    return redis.Redis(port=port)


def _knows_both_replicas(port: int) -> bool:
    try:
        replicas = _client(port).sentinel_slaves("shop")
    except redis.RedisError:
        return False
    return sum(not each["is_disconnected"] for each in replicas) == 2


def test_a_fail_over_in_mid_drain_loses_nothing_that_a_replica_had_confirmed(
    servers: list[Valkey], database: str, relay: RelayFactory, tmp_path: Path
) -> None:
    """The primary is killed for good; the relay goes on at whichever replica was promoted."""
    primary = servers[0]
    with sentinel(primary, tmp_path) as port:
        relay(
            OUTBOX_DATABASE_URL=database,
            OUTBOX_BROKER_URL=f"sentinel://:{primary.password}@127.0.0.1:{port}/0",
            OUTBOX_BROKER_TRANSPORT_OPTIONS=json.dumps({"master_name": "shop"}),
            OUTBOX_REDIS_CONFIRM="replicated:1",
            OUTBOX_BATCH_SIZE="20",
            OUTBOX_WINDOW="100",
        )
        ids = [f"m{number}" for number in range(2000)]
        commit_all(database, ids[:1500])
        wait_until(lambda: states(database)["sent"] > 100, 30, "a part of it sent")
        primary.kill()
        commit_all(database, ids[1500:])
        wait_until(lambda: states(database)["sent"] == len(ids), 60, "all of it sent")

        host, promoted = _client(port).sentinel_get_master_addr_by_name("shop")
        with redis.Redis(host, promoted, password=primary.password) as client:
            arrived = {json.loads(each)["headers"]["id"] for each in client.lrange("celery", 0, -1)}
    assert promoted != primary.port
    assert arrived == set(ids)


def commit_all(database: str, ids: list[str]) -> None:
    """Commit a message for each id, which its worker would see as well."""
    with psycopg.connect(database) as connection, connection.pipeline():
        for each in ids:
            insert_rows(connection, message_ids=[each], headers=json.dumps({"id": each}))
