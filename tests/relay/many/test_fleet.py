"""One relay process between many outboxes and a real RabbitMQ: each is served as if alone."""

from pathlib import Path

import psycopg
import pytest

from outbox_migrations import upgrade
from tests.fixtures.broker import Broker
from tests.fixtures.postgres import OwnPostgres
from tests.fixtures.waiting import wait_until
from tests.relay.many.tenants import DEADLINE, SCHEMAS, Serve, Tenant, arrived, tenants_of

ALL = "tenant_*"
Databases = list[list[Tenant]]


def line(tenants: list[Tenant], *words: str) -> str:
    """The line of a database: all its outboxes."""
    return " ".join((tenants[0].url, ALL, *words))


def sessions(tenant: Tenant, kind: str) -> list[tuple[int]]:
    """The process ids of a relay's sessions in its database that are so named."""
    query = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name ~ %s"
    )
    with psycopg.connect(tenant.url) as connection:
        return connection.execute(query, [f"^outbox-relay{kind}"]).fetchall()


def test_messages_of_all_arrive_once(serve: Serve, databases: Databases, broker: Broker) -> None:
    """Those that were there before, those that come later, in every outbox of both databases."""
    tenants = [tenant for each in databases for tenant in each]
    ids = {tenant: tenant.commit(20) for tenant in tenants}
    serve(*map(line, databases))
    for tenant in tenants:
        tenant.wait_sent(ids[tenant])
    for tenant in tenants:
        ids[tenant] += tenant.commit(5)
    for tenant in tenants:
        tenant.wait_sent(ids[tenant])

    assert {t: arrived(broker, t) for t in tenants} == {
        t: dict.fromkeys(ids[t], 1) for t in tenants
    }


def test_what_is_due_in_an_idle_outbox_is_published(serve: Serve, databases: Databases) -> None:
    """Nobody rings when the time of a message comes."""
    tenant = databases[0][0]
    serve(line(databases[0]))
    wait_until(tenant.rung, DEADLINE, "the watch has the bell")
    ids = tenant.commit(available_in=3)

    tenant.wait_sent(ids, timeout=10)


def test_a_row_of_the_moment_in_which_a_seat_is_given_up(
    serve: Serve, databases: Databases
) -> None:
    """A transaction that is open when the bell changes hands is published once it commits."""
    tenant = databases[0][0]
    serve(line(databases[0]))
    tenant.wait_sent(tenant.commit())
    with psycopg.connect(tenant.url) as connection:
        ids = tenant.insert(connection)
        other = tenants_of(tenant.url)[1]
        other.wait_sent(other.commit())

    tenant.wait_sent(ids, timeout=10)


def test_a_new_schema_is_served_and_a_dropped_one_is_left(
    serve: Serve, databases: Databases
) -> None:
    """Without a restart, and without any harm to the others."""
    url = databases[0][0].url
    relay = serve(line(databases[0]))
    upgrade(url, schema="tenant_new", component="outbox")
    (new,) = tenants_of(url, ("tenant_new",))
    new.wait_sent(new.commit(), timeout=30)
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA tenant_2 CASCADE")
    databases[0][0].wait_sent(databases[0][0].commit())

    wait_until(
        lambda: any(each.get("gone") for each in relay.events("outboxes_listed")),
        DEADLINE,
        "the dropped one is served no more",
    )


def test_a_schema_that_is_named_and_missing_is_set_apart(
    serve: Serve, databases: Databases
) -> None:
    """It is told once, the others of the database go on, and it is served once it is there."""
    tenant, url = databases[0][0], databases[0][0].url
    relay = serve(f"{url} {tenant.schema} tenant_later")
    apart = relay.wait_for_event("outbox_apart")
    assert apart["outbox"].endswith("tenant_later")
    tenant.wait_sent(tenant.commit())
    upgrade(url, schema="tenant_later", component="outbox")
    (later,) = tenants_of(url, ("tenant_later",))

    later.wait_sent(later.commit())
    assert len(relay.events("outbox_apart")) == 1


def test_an_outbox_that_is_renamed_is_served_on(
    serve: Serve, databases: Databases, tmp_path: Path
) -> None:
    """Under its new name, whether or not it has just been served under the old one."""
    tenant = databases[0][0]
    relay = serve(line(databases[0], "name=old"))
    tenant.wait_sent(tenant.commit())
    (tmp_path / "outboxes").write_text(line(databases[0], "name=new") + "\n")
    wait_until(
        lambda: any(each["gone"] for each in relay.events("outboxes_listed")),
        DEADLINE,
        "the file is read again",
    )

    tenant.wait_sent(tenant.commit(), timeout=15)
    assert 'outbox="new/tenant_1"' in relay.metrics()
    assert 'outbox="old/tenant_1"' not in relay.metrics()


def test_a_locked_schema_holds_up_no_other(serve: Serve, databases: Databases) -> None:
    """Somebody migrates one: the others of its database are served meanwhile, and it is after."""
    locked, *others = databases[0]
    serve(line(databases[0]))
    others[0].wait_sent(others[0].commit())
    with psycopg.connect(locked.url) as connection:
        connection.execute(f"LOCK TABLE {locked.schema}.ready IN ACCESS EXCLUSIVE MODE".encode())
        for other in others:
            other.wait_sent(other.commit(), timeout=15)

    locked.wait_sent(locked.commit(), timeout=30)


@pytest.mark.parametrize("away", ["stopped", "frozen"])
def test_a_database_that_is_away_costs_the_others_nothing(
    serve: Serve, databases: Databases, own_postgres: OwnPostgres, away: str
) -> None:
    """It comes back, and what was committed meanwhile is published."""
    server = own_postgres()
    url = server.create_database()
    for schema in SCHEMAS:
        upgrade(url, schema=schema, component="outbox")
    lost, here = tenants_of(url), databases[0]
    relay = serve(line(here, "name=here"), line(lost, "name=lost"))
    for tenant in (*lost, *here):
        tenant.wait_sent(tenant.commit())
    for tenant in lost:
        tenant.commit()
    leave, come_back = {
        "frozen": (server.freeze, server.thaw),
        "stopped": (server.kill, server.start),
    }[away]
    leave()
    for _ in range(3):
        for tenant in here:
            tenant.wait_sent(tenant.commit(10), timeout=10)
    come_back()

    for tenant in lost:
        tenant.wait_sent(tenant.commit())
    assert relay.process.poll() is None


def test_a_broker_that_is_away_holds_up_no_other(serve: Serve, databases: Databases) -> None:
    """With fewer seats than outboxes that wait for the one that is away."""
    gone = "broker_url=amqp://guest:guest@127.0.0.1:1//"
    waiting, here = databases
    for tenant in waiting:
        tenant.commit(5)
    serve(line(waiting, gone), line(here), OUTBOX_MAX_CONNECTIONS="10")

    for _ in range(3):
        for tenant in here:
            tenant.wait_sent(tenant.commit(10), timeout=15)


def test_a_seat_goes_on_in_the_session_of_another(serve: Serve, databases: Databases) -> None:
    """Of the same database, which the other has left and nobody has closed."""
    first, second, _ = databases[0]
    serve(line(databases[0]))
    first.wait_sent(first.commit())
    wait_until(lambda: len(sessions(first, " left$")) == 1, DEADLINE, "a session is left")
    left = sessions(first, " left$")
    second.wait_sent(second.commit())

    wait_until(lambda: sessions(first, " (seat|left)") == left, DEADLINE, "the other goes on in it")


def test_many_with_a_backlog_share_few_seats(
    serve: Serve, databases: Databases, broker: Broker
) -> None:
    """Who drains for long gives its seat up to those that wait: all are served."""
    tenants = [tenant for each in databases for tenant in each]
    big = {tenant: tenant.commit(8_000) for tenant in tenants[:5]}
    serve(*map(line, databases), OUTBOX_MAX_CONNECTIONS="10")
    for tenant in tenants[5:]:
        tenant.wait_sent(tenant.commit(), timeout=30)

    for tenant, ids in big.items():
        tenant.wait_sent(ids)
        assert broker.depth(tenant.queue) == len(ids)


def test_sigterm_settles_everything(serve: Serve, databases: Databases, broker: Broker) -> None:
    """What is in flight lands and is settled: what arrived is sent, and nothing is claimed."""
    tenants = [tenant for each in databases for tenant in each]
    for tenant in tenants:
        tenant.commit(5000)
    relay = serve(*map(line, databases))
    wait_until(lambda: len(tenants[0].sent()) > 100, DEADLINE, "a beginning")

    assert relay.stop() == 0
    for tenant in tenants:
        in_queue = arrived(broker, tenant) if broker.has(tenant.queue) else {}
        assert in_queue == dict.fromkeys(tenant.sent(), 1)


def test_two_processes_share_a_file(serve: Serve, databases: Databases, broker: Broker) -> None:
    """One is rung, the other looks; killed, the first is replaced by the second."""
    tenant = databases[0][0]
    first, second = serve(line(databases[0])), serve(line(databases[0]))
    ids = tenant.commit(10)
    tenant.wait_sent(ids)
    first.kill()
    ids += tenant.commit(10)

    tenant.wait_sent(ids)
    assert arrived(broker, tenant) == dict.fromkeys(ids, 1)
    assert second.process.poll() is None
