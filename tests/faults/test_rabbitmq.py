"""Faults 11, 30, 31, 33, 34, 38 and 39: what RabbitMQ can do to us while it is up."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from tests.faults.lab import DEADLINE, WINDOW, Lab
from tests.faults.queues import RabbitQueue, through
from tests.faults.results import Measured
from tests.fixtures.broker import Broker
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until

#: How each alarm is raised inside the node, and cleared.
ALARMS = {
    "memory": (
        "vm_memory_monitor:set_vm_memory_high_watermark(0.0000001)",
        "vm_memory_monitor:set_vm_memory_high_watermark(0.4)",
    ),
    "disk": (
        'rabbit_disk_monitor:set_disk_free_limit("1000000GB")',
        'rabbit_disk_monitor:set_disk_free_limit("50MB")',
    ),
}
_LEASED = "SELECT count(*) FROM outbox.ready WHERE lease_until > now()"


@pytest.mark.smoke
@pytest.mark.fault(11)
@pytest.mark.parametrize("alarm", ALARMS)
def test_an_alarm(lab: Lab, rabbit: RabbitQueue, alarm: str) -> None:
    """Blocked: claiming stops, no confirm is overdue, no attempt is charged; then all goes on."""
    relay = lab.relay()
    lab.under_way(1)
    raised, cleared = ALARMS[alarm]
    try:
        with lab.fault(lambda: relay.events("broker_blocked")):
            rabbit.broker.node.evaluate(raised)
            lab.commit(1000)
            wait_until(lambda: "outbox_broker_blocked 1.0" in relay.metrics(), DEADLINE, "blocked")
            assert lab.run(_LEASED)[0][0] <= WINDOW
            assert lab.attempts() == 0
    finally:
        rabbit.broker.node.evaluate(cleared)

    lab.finish(duplicates=0)
    assert not relay.events("broker_lost")


@pytest.mark.smoke
@pytest.mark.fault(30)
def test_the_queue_is_deleted(lab: Lab, rabbit: RabbitQueue) -> None:
    """In mid-traffic: returned, and sent when the queue has been declared anew."""
    relay = lab.relay(OUTBOX_MAX_ATTEMPTS="5")
    with lab.producer():
        lab.under_way(300)
        with lab.fault(lambda: returned(relay)):
            rabbit.delete()
            wait_until(lambda: returned(relay), DEADLINE, "returned messages")

    lab.finish(duplicates=WINDOW)
    assert not relay.events("messages_dead")


@pytest.mark.fault(30)
def test_the_queue_is_deleted_for_good(lab: Lab, rabbit: RabbitQueue) -> None:
    """Where nobody may declare it, its messages wait; those to other queues do not."""
    relay = lab.relay(OUTBOX_MAX_ATTEMPTS="1000", OUTBOX_DECLARE="never")
    for queue in ("celery", "other"):
        rabbit.broker.declare(queue)
    lab.under_way(300)
    with lab.fault(lambda: returned(relay)):
        rabbit.delete()
        lab.commit(100)
        elsewhere = lab.commit(500, routing_key="other")
        wait_until(lambda: rabbit.arrived("other").keys() == elsewhere, DEADLINE, "all the others")
        wait_until(lambda: returned(relay), DEADLINE, "returned messages")
    rabbit.broker.declare("celery")

    lab.finish(queues=("celery", "other"), duplicates=WINDOW)


@pytest.mark.smoke
@pytest.mark.fault(31)
def test_the_exchange_is_deleted(lab: Lab, rabbit: RabbitQueue) -> None:
    """404 closes the channel: the messages to it are blamed, their neighbours sent unharmed."""
    with Connection(rabbit.url) as connection:
        Queue("orders", Exchange("orders", "direct"), "paid")(connection.default_channel).declare()
    relay = lab.relay()
    lab.commit(10, exchange="orders", routing_key="paid", declare="[]")
    lab.under_way()
    lab.wait_until_sent()
    with lab.fault(lambda: relay.events("messages_dead")):
        with Connection(rabbit.url) as connection:
            channel: Any = connection.default_channel
            channel.exchange_delete("orders")
        lab.commit(300)
        lab.commit(10, doomed=True, exchange="orders", routing_key="paid", declare="[]")
        lab.commit(300)
        relay.wait_for_event("messages_dead")

    lab.finish(queues=("celery", "orders"), duplicates=isolations(relay) * WINDOW)


@pytest.mark.smoke
@pytest.mark.fault(33)
def test_a_full_queue(lab: Lab, rabbit: RabbitQueue) -> None:
    """Nacked: it waits for room, charged with nothing, while other queues go on."""
    full = {"x-max-length": 100, "x-overflow": "reject-publish"}
    rabbit.broker.declare("narrow", **full)
    relay = lab.relay()
    with lab.fault(lambda: 'failures_total{reason="nacked"}' in relay.metrics()):
        lab.commit(500, routing_key="narrow", declare="[]")
        relay.wait_for_event("messages_refused")
        elsewhere = lab.commit(500)
        wait_until(lambda: rabbit.arrived().keys() >= elsewhere, DEADLINE, "all the others")
        assert lab.attempts() == 0
    wait_until(lambda: rabbit.arrived("narrow").total() == 500, DEADLINE, "all of it to fit")

    lab.finish(queues=("celery", "narrow"), duplicates=0)


@pytest.mark.fault(34)
def test_a_queue_that_drops_silently(
    lab: Lab, rabbit: RabbitQueue, record: Callable[[Measured], None]
) -> None:
    """What is dropped after its confirm no relay can know; `doctor` calls it a problem."""
    rabbit.broker.declare("narrow", **{"x-max-length": 100, "x-overflow": "drop-head"})
    lab.relay()
    lab.commit(300, routing_key="narrow", declare="[]")
    lab.wait_until_sent()

    arrived = rabbit.arrived("narrow").keys()
    doctor = lab.command("doctor")

    assert len(arrived) == 100
    assert doctor.wait() == 1
    assert "narrow" in doctor.output()
    lab.ledger.committed &= arrived
    record(lab.measured(queues=("narrow",), note="200 of 300 dropped by the queue; doctor says so"))


@pytest.mark.fault(38)
def test_the_password_is_changed(lab: Lab, rabbit: RabbitQueue, tmp_path: Path) -> None:
    """Not ready while the old one is refused; the new one is read without a restart."""
    file = tmp_path / "url"
    with a_user(rabbit.broker) as user:
        own = rabbit.url.replace(f"outbox:{rabbit.broker.node.password}", f"{user}:first")
        file.write_text(through(own, lab.to_broker.port))
        relay = lab.relay(OUTBOX_BROKER_URL="", OUTBOX_BROKER_URL_FILE=str(file))
        lab.under_way()
        with lab.fault(lambda: relay.events("broker_lost")):
            rabbit.broker.node.evaluate(
                f'rabbit_auth_backend_internal:change_password(<<"{user}">>, <<"second">>, <<"">>)'
            )
            disconnect(rabbit.broker, user)
            wait_until(lambda: not relay.ready(), DEADLINE, "a relay that is not ready")
            lab.commit(100)
        file.write_text(through(own.replace("first", "second"), lab.to_broker.port))

        lab.finish()
    assert "second" not in relay.output()


@pytest.mark.fault(39)
def test_its_rights_are_taken_away(lab: Lab, rabbit: RabbitQueue) -> None:
    """403 is an operator's to mend: messages wait, charged with nothing."""
    with a_user(rabbit.broker) as user:
        relay = lab.relay(OUTBOX_BROKER_URL=_as(user, lab, rabbit))
        lab.under_way()
        with lab.fault(lambda: relay.events("broker_lost") or relay.events("messages_refused")):
            grant(rabbit.broker, user, "^$")
            disconnect(rabbit.broker, user)  # a channel that is open would keep what it could
            lab.commit(300)
            wait_until(
                lambda: relay.events("broker_lost") and "403" in relay.output(), DEADLINE, "a 403"
            )
            assert lab.attempts() == 0
        grant(rabbit.broker, user, ".*")

        lab.finish(duplicates=WINDOW * (1 + isolations(relay)))


@pytest.mark.fault(39)
def test_its_user_is_deleted(lab: Lab, rabbit: RabbitQueue) -> None:
    """The broker closes the connection: an outage, until the user is there again."""
    with a_user(rabbit.broker) as user:
        relay = lab.relay(OUTBOX_BROKER_URL=_as(user, lab, rabbit))
        lab.under_way()
        with lab.fault(lambda: relay.events("broker_lost")):
            rabbit.broker.node.evaluate(
                f'rabbit_auth_backend_internal:delete_user(<<"{user}">>, <<"">>)'
            )
            disconnect(rabbit.broker, user)
            lab.commit(300)
            relay.wait_for_event("broker_lost")
        add_user(rabbit.broker, user)

        lab.finish()


def returned(relay: Relay) -> bool:
    """Whether a message has come back."""
    return "outbox_returned_total 0.0" not in relay.metrics()


def isolations(relay: Relay) -> int:
    """How many times a channel died of what was on it."""
    return len(relay.events("suspects_isolated"))


@contextmanager
def a_user(broker: Broker) -> Iterator[str]:
    """A user who may do all in the virtual host, with the password `first`."""
    user = f"user-{os.urandom(4).hex()}"
    add_user(broker, user)
    yield user
    broker.node.evaluate(f'rabbit_auth_backend_internal:delete_user(<<"{user}">>, <<"">>)')


def add_user(broker: Broker, user: str) -> None:
    """Add the user."""
    broker.node.evaluate(
        f'ok = rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"first">>, <<"">>)'
    )
    grant(broker, user, ".*")


def grant(broker: Broker, user: str, pattern: str) -> None:
    """Let the user configure, write and read what the pattern matches, and nothing else."""
    rights = ", ".join([f'<<"{pattern}">>'] * 3)
    broker.node.evaluate(
        "ok = rabbit_auth_backend_internal:set_permissions("
        f'<<"{user}">>, <<"{broker.vhost}">>, {rights}, <<"">>)'
    )


def disconnect(broker: Broker, user: str) -> None:
    """Close the user's connections, as the node does with those of a user who is deleted."""
    broker.node.evaluate(
        f'rabbit_networking:close_all_user_connections(<<"{user}">>, <<"changed">>)'
    )


def _as(user: str, lab: Lab, rabbit: RabbitQueue) -> str:
    own = rabbit.url.replace(f"outbox:{rabbit.broker.node.password}", f"{user}:first")
    return through(own, lab.to_broker.port)
