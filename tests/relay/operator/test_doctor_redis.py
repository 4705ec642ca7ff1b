"""`doctor` on a real Valkey: what would lose messages it has accepted."""

from collections.abc import Callable
from typing import Any

from tests.relay.conftest import Cli, Outbox, finding


def test_redis_that_keeps_everything(cli: Cli, own_valkey: Callable[..., Any]) -> None:
    """Append-only file on, nothing evicted."""
    answer = cli("doctor", OUTBOX_BROKER_URL=own_valkey().url)

    assert "answers" in finding(answer, "ok", "broker")
    assert "nothing is evicted" in finding(answer, "ok", "Redis eviction")
    assert "is on" in finding(answer, "ok", "Redis persistence")


def test_redis_that_evicts(cli: Cli, own_valkey: Callable[..., Any]) -> None:
    """The policy, and the command that fixes it."""
    server = own_valkey({"maxmemory": "20mb", "maxmemory-policy": "allkeys-lru"})

    answer = cli("doctor", OUTBOX_BROKER_URL=server.url)

    assert answer.code == 1
    text = finding(answer, "problem", "Redis eviction")
    assert "allkeys-lru evicts whole queues beyond 20 MB" in text
    assert "noeviction" in text


def test_redis_without_an_append_only_file(cli: Cli, own_valkey: Callable[..., Any]) -> None:
    """A crash loses what was confirmed."""
    answer = cli("doctor", OUTBOX_BROKER_URL=own_valkey({"appendonly": "no"}).url)

    assert answer.code == 1
    assert "AOF" in finding(answer, "problem", "Redis persistence")
    assert "appendonly yes" in finding(answer, "problem", "Redis persistence")


def test_a_wrong_password_of_redis(cli: Cli, own_valkey: Callable[..., Any]) -> None:
    """Said to be that."""
    server = own_valkey()

    url = server.url.replace(server.password, "hunter2")
    answer = cli("doctor", OUTBOX_BROKER_URL=url)

    assert answer.code == 1
    assert "wrong user or password" in finding(answer, "problem", "broker")
    assert "hunter2" not in answer.out


def test_an_exchange_nothing_is_bound_to_on_redis(
    cli: Cli, outbox: Outbox, own_valkey: Callable[..., Any]
) -> None:
    """Redis would drop the message without a word: said before."""
    outbox.add(exchange="events", queue="order.paid")

    answer = cli("doctor", OUTBOX_BROKER_URL=own_valkey().url)

    assert "nothing is bound to exchange 'events'" in finding(answer, "problem", "route")
