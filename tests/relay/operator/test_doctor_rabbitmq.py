"""`doctor` on a real RabbitMQ: what is missing, what drops messages, and nothing is changed."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from servers.ports import free_port
from servers.rabbitmq_packages import version
from tests.fixtures.broker import Broker, frozen_queue, largest_message
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Answer, Cli, Doctor, Outbox, finding


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


def test_a_management_api_that_is_away(doctor: Doctor) -> None:
    """Its setting is named: whoever reads the report in the console can give no flag."""
    text = finding(doctor(), "warn", "management API")

    assert "were not checked" in text
    assert "--management-url (OUTBOX_MANAGEMENT_URL)" in text


def test_a_missing_queue(doctor: Doctor, outbox: Outbox) -> None:
    """The queue, and how many messages wait for it."""
    outbox.add(queue="orders")

    answer = doctor()

    assert answer.code == 1
    text = finding(answer, "problem", "route")
    assert "queue 'orders' does not exist" in text
    assert "1 unsent message(s)" in text
    assert "start a worker" in text


def test_a_queue_that_hangs(
    doctor: Doctor, outbox: Outbox, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and the others are judged."""
    monkeypatch.setattr("outbox_relay.broker.amqp.check.probe.CONNECT_TIMEOUT", 0.5)
    for queue in ("hangs", "answers"):
        broker.declare(queue)
        outbox.add(queue=queue)

    with frozen_queue(broker, "hangs"):
        answer = doctor()

    assert "'hangs' gives no answer" in finding(answer, "problem", "route")
    assert "queue 'answers'" in finding(answer, "warn", "consumers")


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


def test_a_refusing_queue_beside_others_of_its_exchange(
    doctor: Doctor, outbox: Outbox, broker: Broker
) -> None:
    """When it is full, the others get duplicates; nothing is said where none refuses."""
    news = Exchange("news", "topic")
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    with Connection(broker.url) as connection:
        Queue("main", news, "a.#")(connection.default_channel).declare()
        Queue("audit", news, "#", queue_arguments=full)(connection.default_channel).declare()
    entity = {"kind": "queue", "exchange": {"name": "news", "type": "topic"}}
    both = [{**entity, "name": "main"}, {**entity, "name": "audit", "queue_arguments": full}]
    outbox.add(exchange="news", queue="a.b", declare=json.dumps(both[:1]))
    assert "fan-out" not in doctor().out

    outbox.add(exchange="news", queue="a.b", declare=json.dumps(both))

    assert "feeds queue 'audit'" in finding(doctor(), "warn", "fan-out")


def test_asking_changes_nothing(doctor: Doctor, outbox: Outbox, broker: Broker) -> None:
    """No queue comes into being, and those there are keep their messages."""
    outbox.add(queue="orders", declare=DECLARATION)

    doctor()

    assert not broker.has("orders")


def test_the_version_is_judged(doctor: Doctor, broker: Broker) -> None:
    """By what the broker greets with."""
    found = version(broker.node.root)
    level = "warn" if found < "4.2" else "ok"

    assert f"RabbitMQ {found} " in finding(doctor(), level, "RabbitMQ version")


def test_bodies_as_large_as_producers_store_are_tried(doctor: Doctor, broker: Broker) -> None:
    """Nobody tells the limit but by refusing; then both ways out are named."""
    assert "bodies of 16777216 bytes are taken" in finding(doctor(), "ok", "message size")

    with largest_message(broker.node, 1_000_000):
        answer = doctor()

    text = finding(answer, "warn", "message size")
    assert "takes bodies up to 1000000 bytes (max_message_size)" in text
    assert "outbox_max_body = 1000000" in text


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
        channel: Any = connection.default_channel
        Exchange("events", "topic")(channel).declare()
        channel.queue_declare("passing", durable=False, auto_delete=False)
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
    if version(node.root) >= "4":  # older ones do not tell
        text = finding(answer, "warn", "deprecated feature")
        assert "transient_nonexcl_queues is in use" in text
        assert "make the queues durable" in text


def _enable_management(node: Any) -> int:
    """Start the plugin on a running node; returns its port."""
    port = free_port()
    enabled = node.folder / "enabled_plugins"
    enabled.write_text("[rabbitmq_management].\n")
    node.evaluate(
        f"application:set_env(rabbitmq_management, tcp_config, [{{port, {port}}}, "
        '{ip, "127.0.0.1"}], [{persistent, true}])'
    )
    # A node takes connections shortly before it counts as running.
    ensure = f'rabbit_plugins:ensure("{enabled}")'
    wait_until(lambda: "error" not in node.evaluate(ensure), 60, "the management plugin")
    return port
