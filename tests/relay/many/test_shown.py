"""What a relay of many outboxes tells of each: in its log, its metrics, and to commands."""

from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.broker import Broker
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import NO_MANAGEMENT, Cli, finding
from tests.relay.many.tenants import SCHEMAS, Serve, Tenant

Databases = list[list[Tenant]]
NAMES = [f"{name}/{schema}" for name in ("eu", "us") for schema in SCHEMAS]


@pytest.fixture
def running(serve: Serve, databases: Databases) -> Relay:
    """A relay of two databases, which has published a message of each of their outboxes."""
    started = serve(*lines(databases), OUTBOX_LOG_LEVEL="debug")
    for tenant in (tenant for database in databases for tenant in database):
        tenant.wait_sent(tenant.commit())
    return started


def lines(databases: Databases) -> Sequence[str]:
    """A line for each, with a name."""
    names = ("eu", "us")
    return [f"{d[0].url} tenant_* name={n}" for n, d in zip(names, databases, strict=True)]


def test_each_line_of_the_log_tells_whose_it_is(running: Relay) -> None:
    """What is of an outbox has its name, what is of a database has that of the database."""
    wait_until(
        lambda: {each.get("outbox") for each in running.events("batch")} >= {*NAMES},
        30,
        "a line of each outbox",
    )

    assert {each.get("outbox") for each in running.events("batch")} == {*NAMES}
    assert all("outbox" not in each for each in running.events("outboxes_listed"))
    shared = [each for each in running.events("database_up") if "outbox" not in each]
    assert sorted(each["database"] for each in shared) == ["eu", "us"]


def test_metrics_are_of_each(running: Relay) -> None:
    """Counted where it was published, under the name of the file."""

    def confirmed() -> dict[str, float]:
        return {
            sample.labels["outbox"]: sample.value
            for family in text_string_to_metric_families(running.metrics())
            for sample in family.samples
            if sample.name == "outbox_confirm_seconds_count"
        }

    wait_until(lambda: confirmed() == dict.fromkeys(NAMES, 1.0), 30, "one confirm of each")


def test_commands_see_the_relay(
    running: Relay, serve: Serve, databases: Databases, broker: Broker, command: Cli
) -> None:
    """All outboxes are served, whether or not one of them has anything to do now."""
    file = str(running.log.with_name("outboxes"))
    environment = {
        "OUTBOX_DATABASES_FILE": file,
        "OUTBOX_BROKER_URL": broker.url,
        "OUTBOX_MANAGEMENT_URL": NO_MANAGEMENT,
        "OUTBOX_HTTP_ADDRESS": running.address,
    }

    status = command("status", **environment)
    one = command("status", "--json", "--outbox", "us/tenant_2", **environment)
    doctor = command("doctor", **environment)
    health = command("health", **environment)

    assert status.out.count("\tyes\t") == len(NAMES)
    assert one.json()["relays_alive"] == 1
    assert finding(doctor, "ok", "relays") == f"ok       relays: well with {len(NAMES)} outbox(es)"
    assert (health.code, health.out.strip()) == (0, "ready")
    of_one = command("health", "--outbox", "us/tenant_2", **environment)
    assert (of_one.code, of_one.out.strip()) == (0, "ready")
