"""Faults 11, 30, 31, 33 and 34: what RabbitMQ can do to us while it is up."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from tests.faults.evidence import isolations, returned
from tests.faults.lab import DEADLINE, WINDOW, Lab
from tests.faults.queues import RabbitQueue
from tests.faults.results import Measured
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
#: One message each: pauses of 50 ms, 100 ms, and so on.
PROBES = 5
_WAITING = "SELECT count(*) FROM outbox.parked WHERE route IS NOT NULL"
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
    """In mid-traffic: what comes back is sent to a queue declared anew, and costs no attempt."""
    relay = lab.relay()
    with lab.producer():
        lab.under_way(300)
        with lab.fault(lambda: rabbit.broker.has("celery")):
            lab.delete_queue(rabbit)
            wait_until(lambda: rabbit.broker.has("celery"), DEADLINE, "a queue")

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
    """404 closes the channel: the messages to it are dead, their neighbours sent unharmed."""
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


@pytest.mark.fault(33)
def test_a_full_queue_beside_a_healthy_one(lab: Lab, rabbit: RabbitQueue) -> None:
    """Of one exchange: each further attempt is a duplicate in the healthy one, so they are few."""
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    with Connection(rabbit.url) as connection:
        news, channel = Exchange("news", "topic"), connection.default_channel
        Queue("main", news, "#")(channel).declare()
        Queue("audit", news, "#", queue_arguments=full)(channel).declare()
        relay = lab.relay()
        with lab.fault(lambda: nacked(relay) > 0):
            lab.commit(100, exchange="news", routing_key="a.b", declare="[]")
            wait_until(lambda: nacked(relay) > 0, DEADLINE, "nacks")
            wait_until(lambda: waiting(lab) == 100 - 1, DEADLINE, "all but one to wait")
            at_once = nacked(relay)
            wait_until(lambda: nacked(relay) >= at_once + PROBES, DEADLINE, "probes")
            twice = rabbit.arrived("main").total() - len(rabbit.arrived("main"))
            assert twice <= 2 * PROBES
            assert lab.attempts() == 0
        Queue("audit", news, "#", queue_arguments=full)(channel).delete()

    lab.finish(queues=("celery", "main"), duplicates=WINDOW)


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


def nacked(relay: Relay) -> int:
    """How many times it was told that a message was not taken."""
    found = re.search(r'failures_total{reason="nacked"} (\d+)', relay.metrics())
    return int(found[1]) if found else 0


def waiting(lab: Lab) -> int:
    """How many messages wait for their route."""
    return int(lab.run(_WAITING)[0][0])
