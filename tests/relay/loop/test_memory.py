"""A Redis of little memory is never filled by what nobody takes; all of it arrives in the end."""

from typing import Any

import psycopg
import pytest
import redis

from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
MB = 1 << 20
ROWS, BODY = 3_000, b'"' + b"x" * 8_000 + b'"'
DECLARED = '[{"kind": "queue", "name": "mail", "routing_key": "mail"}]'


def environment(database: str, broker_url: str) -> dict[str, str]:
    """With no setting about it."""
    return {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker_url}


def held(database: str) -> int:
    """How many messages wait for room in the queue mail."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM outbox.parked WHERE route = chr(30) || 'depth:mail'"
            " AND state = 'retry' AND attempts = 0 AND last_error LIKE '%kept short%'"
        ).fetchone()
    return int(row[0]) if row else 0


def ratio(process: Relay) -> float:
    """How much of the memory is used, as the metrics have it."""
    lines = process.metrics().splitlines()
    return float(next(line for line in lines if line.startswith("outbox_broker_memory")).split()[1])


def test_a_small_redis_is_never_full(
    relay: RelayFactory, database: str, own_valkey: OwnValkey
) -> None:
    """Workers off: what would fill it waits, other queues flow; workers on: all of it arrives."""
    valkey = own_valkey({"maxmemory": "16mb"})
    client = redis.Redis.from_url(valkey.url)
    commit_rows(database, ROWS, routing_key="mail", body=BODY)
    process = relay(**environment(database, valkey.url))

    process.wait_for_event("broker_filling", DEADLINE)
    wait_until(lambda: held(database) > ROWS // 2, DEADLINE, "the rest held")
    assert ratio(process) < 1
    commit_rows(database, 50, routing_key="other")
    wait_until(lambda: client.llen("other") == 50, DEADLINE, "others sent")

    taken = 0

    def step() -> bool:
        nonlocal taken
        assert client.info("memory")["used_memory"] < 16 * MB
        taken += len(client.lpop("mail", ROWS) or ())
        return taken >= ROWS

    wait_until(step, DEADLINE, "all to arrive")
    wait_until(lambda: states(database)["pending"] == 0, DEADLINE, "all settled")
    assert taken == ROWS
    assert not process.events("broker_blocked")
    process.wait_for_event("broker_has_room", DEADLINE)


@pytest.mark.parametrize("maxmemory", ["0", "1gb"])
def test_where_there_is_room_nothing_waits(
    relay: RelayFactory, database: str, own_valkey: OwnValkey, maxmemory: str
) -> None:
    """Not even for a moment."""
    valkey = own_valkey({"maxmemory": maxmemory})
    commit_rows(database, ROWS, routing_key="mail", body=BODY)
    relay(**environment(database, valkey.url))

    client = redis.Redis.from_url(valkey.url)
    wait_until(lambda: client.llen("mail") == ROWS, DEADLINE, "all sent")
    wait_until(lambda: states(database)["pending"] == 0, DEADLINE, "all settled")
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT max(attempts), count(*) FROM outbox.parked").fetchone()
    assert row == (None, 0)


def test_a_server_that_does_not_tell_holds_nothing_up(
    relay: RelayFactory, database: str, own_valkey: OwnValkey
) -> None:
    """As of a provider that forbids INFO: said once, and all is sent."""
    valkey = own_valkey({"maxmemory": "64mb"})
    client: Any = redis.Redis.from_url(valkey.url)
    client.execute_command("ACL", "SETUSER", "relay", "on", ">secret", "~*", "&*", "+@all", "-info")
    url = valkey.url.replace(f":{valkey.password}@", "relay:secret@")
    commit_rows(database, 200, routing_key="mail", body=BODY)
    process = relay(**environment(database, url))

    wait_until(lambda: client.llen("mail") == 200, DEADLINE, "all sent")
    assert "INFO" in str(process.wait_for_event("broker_memory_unknown", DEADLINE)["reason"])
    commit_rows(database, 200, routing_key="mail", body=BODY)
    wait_until(lambda: client.llen("mail") == 400, DEADLINE, "more sent")
    assert len(process.events("broker_memory_unknown")) == 1
