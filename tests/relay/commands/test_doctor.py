"""`doctor` names the cause and the way out of each problem seeded here, on real servers."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from kombu import Connection, Exchange

from outbox_migrations.grants import grant
from outbox_relay.commands.doctor.activity import check_clock
from outbox_relay.commands.doctor.finding import Level
from outbox_relay.commands.session import Session
from outbox_relay.settings import from_environment
from servers.ports import free_port
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.waiting import wait_until
from tests.relay.commands.conftest import Answer, Cli, Outbox

Doctor = Callable[..., Answer]
#: Nothing listens at the usual port on the machine a test runs on; and if so, it is not ours.
NO_MANAGEMENT = "http://127.0.0.1:1"


@pytest.fixture
def doctor(cli: Cli, broker: Broker) -> Doctor:
    """Run `doctor` on the fresh database and the fresh virtual host."""

    def run(*arguments: str, **environment: str) -> Answer:
        usual = {"OUTBOX_BROKER_URL": broker.url, "OUTBOX_MANAGEMENT_URL": NO_MANAGEMENT}
        return cli("doctor", *arguments, **{**usual, **environment})

    return run


def finding(answer: Answer, level: str, name: str) -> str:
    """The text of the first finding of that level and name, with its remedy."""
    lines = answer.out.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"{level:<9}{name}: "):
            remedy = lines[number + 1] if lines[number + 1 :] else ""
            return line + (remedy if remedy.startswith(" ") else "")
    raise AssertionError(f"no {level} {name!r} in:\n{answer.out}{answer.err}")


def test_a_healthy_stack_has_no_problem(
    doctor: Doctor, outbox: Outbox, relay: RelayFactory, database: str, broker: Broker
) -> None:
    """Exit 0, and each check says what it found."""
    broker.declare("celery")
    outbox.add_sent()
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)

    answer = doctor()

    assert answer.code == 0, answer.out
    assert "no problem found" in answer.out
    assert "1 connected" in finding(answer, "ok", "relays")
    assert "every message finds a safe queue" in finding(answer, "ok", "route")


def test_for_programs_each_finding_is_an_object(doctor: Doctor, outbox: Outbox) -> None:
    """name, level, text and remedy."""
    outbox.add_dead()

    answer = doctor("--json")

    assert answer.code == 1
    assert all(set(each) == {"name", "level", "text", "remedy"} for each in answer.json())
    assert {"ok", "warn", "problem"} == {each["level"] for each in answer.json()}
    assert all(each["remedy"] for each in answer.json() if each["level"] != "ok")


# --- database


def test_a_database_that_is_down(doctor: Doctor) -> None:
    """The address, and what to look at; the broker is examined all the same."""
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/shop"

    answer = doctor(OUTBOX_DATABASE_URL=url)

    assert answer.code == 1
    assert "Connection refused" in finding(answer, "problem", "database")
    assert "start the server" in finding(answer, "problem", "database")
    assert finding(answer, "ok", "broker")


def test_a_wrong_password_of_the_database(doctor: Doctor, database: str) -> None:
    """The user is named, the password is not."""
    password = urlsplit(database).password
    answer = doctor(OUTBOX_DATABASE_URL=database.replace(f":{password}@", ":hunter2@"))

    assert answer.code == 1
    assert "password authentication failed" in finding(answer, "problem", "database")
    assert "OUTBOX_DATABASE_URL" in finding(answer, "problem", "database")
    assert "hunter2" not in answer.out


def test_a_missing_schema(doctor: Doctor, empty_database: str) -> None:
    """Named, with the command that creates it."""
    answer = doctor(OUTBOX_DATABASE_URL=empty_database)

    assert answer.code == 1
    assert "no schema 'outbox'" in finding(answer, "problem", "schema")
    assert "outbox-migrate up" in finding(answer, "problem", "schema")


def test_a_missing_table(doctor: Doctor, outbox: Outbox) -> None:
    """Each one is named."""
    outbox.connection.execute("DROP TABLE outbox.receipt CASCADE")

    answer = doctor()

    assert answer.code == 1
    assert "missing in schema 'outbox': receipt" in finding(answer, "problem", "schema")


@pytest.mark.parametrize(("version", "way_out"), [(2, "upgrade outbox-relay"), (0, "migrate up")])
def test_another_version(doctor: Doctor, outbox: Outbox, version: int, way_out: str) -> None:
    """Both versions, and which side to upgrade."""
    outbox.connection.execute(
        "CREATE OR REPLACE FUNCTION outbox.version() RETURNS integer "
        f"LANGUAGE sql AS 'SELECT {version}'"
    )

    answer = doctor()

    assert answer.code == 1
    assert f"has version {version}, this relay works with 1" in finding(answer, "problem", "schema")
    assert way_out in finding(answer, "problem", "schema")


@pytest.fixture
def login(outbox: Outbox, database: str) -> Iterator[tuple[str, str]]:
    """A new login without any right: its name, and the database's URL with it."""
    name = f"l{urlsplit(database).path[2:14]}"
    outbox.connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield name, f"{database}?user={name}&password=secret"
    outbox.connection.execute(f"DROP OWNED BY {name}")
    outbox.connection.execute(f"DROP ROLE {name}")


def test_missing_privileges(doctor: Doctor, outbox: Outbox, login: tuple[str, str]) -> None:
    """Each missing right is named, with the grant that gives them all."""
    name, url = login
    outbox.connection.execute(f"GRANT USAGE ON SCHEMA outbox TO {name}")
    outbox.connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA outbox TO {name}")

    answer = doctor(OUTBOX_DATABASE_URL=url)

    assert answer.code == 1
    text = finding(answer, "problem", "privileges")
    assert f"{name} lacks" in text
    assert "DELETE on ready" in text
    assert "EXECUTE on purge()" in text
    assert f'GRANT outbox_relay TO "{name}"' in text


def test_what_grant_gives_is_enough(
    doctor: Doctor, outbox: Outbox, login: tuple[str, str], database: str
) -> None:
    """The remedy that `doctor` names is one; other logins' transactions stay hidden, and that."""
    name, url = login
    grant(database)
    outbox.connection.execute(f"GRANT outbox_relay TO {name}")

    answer = doctor(OUTBOX_DATABASE_URL=url)

    assert "may do all" in finding(answer, "ok", "privileges")
    assert "GRANT pg_read_all_stats" in finding(answer, "warn", "long transactions")


def test_a_read_only_database(doctor: Doctor, database: str) -> None:
    """A standby, or a switch."""
    answer = doctor(
        OUTBOX_DATABASE_URL=f"{database}?options={quote('-c default_transaction_read_only=on')}"
    )

    assert answer.code == 1
    assert "read-only" in finding(answer, "problem", "database writable")


def test_an_open_transaction_is_named(doctor: Doctor, outbox: Outbox, database: str) -> None:
    """Process, user, application and age, as soon as it holds the horizon."""
    with psycopg.connect(database, application_name="nightly-report") as report:
        report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        report.execute("SELECT count(*) FROM outbox.message")

        text = finding(doctor(), "ok", "long transactions")

        assert f"pid {report.info.backend_pid}" in text
        assert "user postgres" in text
        assert "application nightly-report" in text


def test_a_wrong_clock_is_named(database: str) -> None:
    """How far this machine is off, by the clock of a real database."""
    settings = from_environment({"OUTBOX_DATABASE_URL": database}, need_broker=False)
    with Session.open(settings) as session:
        (found,) = check_clock(session, clock=lambda: time.time() - 7200)

    assert found.level is Level.PROBLEM
    assert "behind the database's" in found.text
    assert "NTP" in found.remedy


def test_bloat_is_named(doctor: Doctor, outbox: Outbox) -> None:
    """A hot table much larger than its rows, and that nothing vacuums it."""
    run = outbox.connection.execute
    run("ALTER TABLE outbox.ready SET (autovacuum_enabled = false)")
    run("INSERT INTO outbox.ready (id, slot) SELECT g, 0 FROM generate_series(1, 600000) g")
    run("DELETE FROM outbox.ready")

    answer = doctor()

    assert answer.code == 1
    assert "outbox.ready is bloated" in finding(answer, "problem", "bloat")
    assert "VACUUM outbox.ready" in finding(answer, "problem", "bloat")
    assert "switched off for outbox.ready" in finding(answer, "warn", "autovacuum")


# --- backlog


def test_a_stopped_relay(doctor: Doctor, outbox: Outbox) -> None:
    """Messages wait and nobody is there."""
    outbox.add()

    answer = doctor()

    assert answer.code == 1
    text = finding(answer, "problem", "relays")
    assert "no relay is connected, and 1 message(s) wait" in text
    assert "outbox-relay run" in text


def test_a_poison_row(
    doctor: Doctor, outbox: Outbox, relay: RelayFactory, database: str, broker: Broker
) -> None:
    """A row no broker could take is dead, with its reason, an example and the way out."""
    broker.declare("celery")
    outbox.connection.execute(
        """
        INSERT INTO outbox.message (message_id, task, routing_key, properties, body, content_type,
                                    content_encoding)
        VALUES ('poison', 'shop.bill', 'celery', '{"delivery_mode": 7}', 'x', 'text/plain', 'utf-8')
        """
    )
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)
    wait_until(lambda: outbox.ids("dead"), 20, "the poison row's death")

    answer = doctor()

    assert answer.code == 1
    text = finding(answer, "problem", "dead letters")
    assert "1 x shop.bill" in text
    assert "delivery_mode" in text
    assert "poison" in text
    assert "outbox-relay retry" in text


# --- RabbitMQ


def test_a_broker_that_is_down(doctor: Doctor) -> None:
    """The address, and what to look at."""
    port = free_port()

    answer = doctor(OUTBOX_BROKER_URL=f"amqp://u:hunter2@127.0.0.1:{port}//")

    assert answer.code == 1
    text = finding(answer, "problem", "broker")
    assert f"127.0.0.1:{port}" in text
    assert "refused" in text
    assert "start the server" in text
    assert "hunter2" not in answer.out


def test_a_broker_that_is_down_while_another_stands_in(doctor: Doctor, broker: Broker) -> None:
    """A warning: fail-over works as long as one answers."""
    answer = doctor(OUTBOX_BROKER_URL=f"amqp://u:p@127.0.0.1:{free_port()}//;{broker.url}")

    assert "cannot connect" in finding(answer, "warn", "broker")
    assert "RabbitMQ at" in finding(answer, "ok", "broker")


def test_a_wrong_password_of_the_broker(doctor: Doctor, broker: Broker) -> None:
    """Said to be that, with the variable to correct; the password is not shown."""
    answer = doctor(OUTBOX_BROKER_URL=broker.url.replace(broker.node.password, "hunter2"))

    assert answer.code == 1
    assert "wrong user or password" in finding(answer, "problem", "broker")
    assert "OUTBOX_BROKER_URL" in finding(answer, "problem", "broker")
    assert "hunter2" not in answer.out


def test_a_missing_virtual_host(doctor: Doctor, broker: Broker) -> None:
    """Named, with the commands that make it."""
    answer = doctor(OUTBOX_BROKER_URL=broker.node.url("nowhere"))

    assert answer.code == 1
    assert "add_vhost" in finding(answer, "problem", "broker")


def test_a_missing_queue(doctor: Doctor, outbox: Outbox) -> None:
    """The queue, and how many messages wait for it."""
    outbox.add(queue="orders")

    answer = doctor()

    assert answer.code == 1
    text = finding(answer, "problem", "route")
    assert "queue 'orders' does not exist" in text
    assert "1 unsent message(s)" in text
    assert "start a worker" in text


DECLARATION = '[{"kind": "queue", "name": "orders", "exchange": {"name": "orders"}}]'


def test_a_missing_queue_the_relay_will_declare(doctor: Doctor, outbox: Outbox) -> None:
    """No problem, unless it is told not to declare."""
    outbox.add(queue="orders", declare=DECLARATION)

    assert "every message finds" in finding(doctor(), "ok", "route")
    never = finding(doctor(OUTBOX_DECLARE="never"), "problem", "route")
    assert "queue 'orders' does not exist (OUTBOX_DECLARE=never)" in never


def test_a_missing_exchange(doctor: Doctor, outbox: Outbox) -> None:
    """The exchange is named."""
    outbox.add(exchange="events", queue="order.paid")

    assert "exchange 'events' does not exist" in finding(doctor(), "problem", "route")


RISKY = [
    ({"x-max-length": 10}, "drops its oldest messages beyond 10 messages", "reject-publish"),
    ({"x-max-length-bytes": 999}, "drops its oldest messages beyond 999 bytes", "reject-publish"),
    ({"x-message-ttl": 60000}, "drops messages that no worker took within 1m", "TTL"),
    ({"x-expires": 60000}, "deleted with its messages when unused for 1m", "x-expires"),
]


@pytest.mark.parametrize(("arguments", "danger", "way_out"), RISKY, ids=lambda x: str(x)[:20])
def test_a_queue_that_drops_confirmed_messages(
    doctor: Doctor,
    outbox: Outbox,
    broker: Broker,
    arguments: dict[str, object],
    danger: str,
    way_out: str,
) -> None:
    """Found over AMQP alone, also when everything has been sent."""
    broker.declare("celery", **arguments)
    outbox.add_sent()

    answer = doctor()

    assert answer.code == 1
    text = finding(answer, "problem", "queue")
    assert f"queue 'celery' {danger}" in text or danger in text
    assert way_out in text


def test_a_limit_that_refuses_is_no_problem(doctor: Doctor, outbox: Outbox, broker: Broker) -> None:
    """reject-publish is backpressure: the outbox keeps what the queue does not take."""
    arguments = {"x-queue-type": "quorum", "x-max-length": 10, "x-overflow": "reject-publish"}
    broker.declare("celery", **arguments)
    outbox.add_sent()

    assert "every message finds a safe queue" in finding(doctor(), "ok", "route")


def test_asking_changes_nothing(doctor: Doctor, outbox: Outbox, broker: Broker) -> None:
    """No queue comes into being, and those there are keep their messages."""
    outbox.add(queue="orders", declare=DECLARATION)

    doctor()

    assert not broker.has("orders")


def test_the_management_api_tells_policies_and_bindings(
    cli: Cli, outbox: Outbox, own_rabbitmq: Callable[..., Any]
) -> None:
    """A policy that drops, and an exchange that leads nowhere, are found where it is reachable."""
    node = own_rabbitmq()
    api = f"http://127.0.0.1:{_enable_management(node)}"
    vhost = node.create_vhost()
    broker = Broker(node, vhost)
    broker.declare("celery")
    with Connection(broker.url) as connection:
        Exchange("events", "topic")(connection.default_channel).declare()
    node.ctl("set_policy", "-p", vhost, "cap", "^celery$", '{"max-length": 5}')
    outbox.add_sent()
    outbox.add(exchange="events", queue="order.paid")

    def ask() -> Answer | None:
        answer = cli("doctor", "--management-url", api, OUTBOX_BROKER_URL=node.url(vhost))
        return answer if "problem  queue" in answer.out else None

    # The API collects what it knows of queues every few seconds.
    answer = wait_until(ask, 60, "the policy in the management API")
    assert answer
    assert answer.code == 1
    assert "beyond 5 messages (policy max-length" in finding(answer, "problem", "queue")
    text = finding(answer, "problem", "route")
    assert "exchange 'events' with routing key 'order.paid' (topic) reaches no queue" in text


def _enable_management(node: Any) -> int:
    """Start the plugin on a running node; returns its port."""
    port = free_port()
    enabled = node.folder / "enabled_plugins"
    enabled.write_text("[rabbitmq_management].\n")
    node.evaluate(
        f"application:set_env(rabbitmq_management, tcp_config, [{{port, {port}}}, "
        '{ip, "127.0.0.1"}], [{persistent, true}])'
    )
    node.evaluate(f'rabbit_plugins:ensure("{enabled}")')
    return port


# --- Redis


def test_redis_that_keeps_everything(cli: Cli, own_valkey: Callable[..., Any]) -> None:
    """Append-only file on, nothing evicted."""
    answer = cli("doctor", OUTBOX_BROKER_URL=own_valkey().url)

    assert "answers" in finding(answer, "ok", "broker")
    assert "nothing is evicted" in finding(answer, "ok", "Redis eviction")
    assert "is on" in finding(answer, "ok", "Redis persistence")


def test_redis_that_evicts(cli: Cli, own_valkey: Callable[..., Any]) -> None:
    """The policy, and the command that mends it."""
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
