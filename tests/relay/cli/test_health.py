"""`health` repeats what the relay beside it says of itself, and is quick about it."""

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from outbox_relay.observe.health import Endpoint, Health
from servers.ports import free_port
from tests.relay.conftest import Answer, Cli

DATABASE = "postgresql://nobody@127.0.0.1:1/nothing"


def ask(command: Cli, address: str) -> Answer:
    """Run it as a container's health check does: with the relay's own environment."""
    return command("health", OUTBOX_DATABASE_URL=DATABASE, OUTBOX_HTTP_ADDRESS=address)


@pytest.mark.parametrize(
    ("broker", "code", "said"),
    [(True, 0, "ready"), (False, 1, "no connection to: broker")],
    ids=["ready", "not ready"],
)
def test_the_relay_beside_it_is_asked(command: Cli, broker: bool, code: int, said: str) -> None:
    """Also one that listens on every address."""
    health, port = Health(), free_port()
    health.database_up, health.broker_up = True, broker
    with Endpoint(("0.0.0.0", port), health, CollectorRegistry()):
        answer = ask(command, f"0.0.0.0:{port}")

    assert (answer.code, answer.out.strip()) == (code, said)


def test_no_relay_is_not_healthy(command: Cli) -> None:
    """Where nothing listens, the address is named."""
    answer = ask(command, "127.0.0.1:1")

    assert answer.code == 1
    assert "no relay answers at 127.0.0.1:1" in answer.out


def test_without_an_address_there_is_nothing_to_ask(command: Cli) -> None:
    """A setting to correct, and not an outage."""
    answer = ask(command, "off")

    assert answer.code == 2
    assert "OUTBOX_HTTP_ADDRESS is off" in answer.err


def test_a_health_check_loads_no_library() -> None:
    """It runs every few seconds, and would otherwise cost more than an idle relay does."""
    distributions = ("amqp", "hiredis", "kombu", "orjson", "prometheus_client", "psycopg", "redis")
    libraries = {*distributions, "rich", "structlog", "tenacity", "vine"}
    program = (
        "import sys; sys.argv[1:] = ['health']; from outbox_relay.__main__ import main; main();"
        f"print({libraries} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"OUTBOX_DATABASE_URL": DATABASE, "OUTBOX_HTTP_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.stdout.splitlines()[-1:] == ["set()"], done.stderr
