"""Faults 32 and 35 to 37: rows that no broker takes, however they got into the table."""

import json
from time import monotonic
from typing import Any

import psycopg
import pytest

from servers.rabbitmq_packages import version
from tests.faults.evidence import isolations
from tests.faults.lab import DEADLINE, WINDOW, Lab
from tests.faults.queues import RabbitQueue
from tests.faults.relay_process import peak_memory
from tests.fixtures.broker import largest_message
from tests.fixtures.waiting import wait_until

MEGABYTE = 1 << 20
#: In bytes; RabbitMQ then refuses larger bodies with 406, which closes the channel.
LIMIT = 5_000

#: What somebody may write by hand: the table refuses it, or the relay buries it.
BY_HAND: list[dict[str, Any]] = [
    {"headers": None},
    {"routing_key": None},
    {"headers": "5"},
    {"headers": "[]"},
    {"headers": '{"x": NaN}'},
    {"routing_key": "k" * 300},
    {"exchange": "e" * 300, "declare": "[]"},
    {"properties": '{"priority": "high"}'},
    {"properties": '{"priority": ' + "7" * 5000 + "}"},
    {"properties": '{"priority": 1, "x": ' + "[" * 5000 + "]" * 5000 + "}"},
    {"declare": "[null]"},
    {"declare": '[{"kind": "queue", "name": 5}]'},
    {"declare": '[{"kind": "exchange", "name": "x", "type": ["fanout"]}]'},
    {"declare": '[{"kind": "exchange", "name": "x", "arguments": 5}]'},
    {"declare": '[{"kind": "queue", "name": "x", "queue_arguments": 5}]'},
    {"declare": "[" * 5000 + "]" * 5000},
]
#: Redis has no types, and takes these.
AMQP_MINDS: list[dict[str, Any]] = [
    {"headers": '{"x": 1e400}'},
    {"headers": json.dumps({"x": 2**70})},
    {"headers": '{"x": "\\ud800"}'},
    {"headers": json.dumps({"k" * 300: 1})},
    {"headers": json.dumps({"x": {"__type__": "decimal", "__value__": "ten"}})},
    {"properties": '{"expiration": "-5"}'},
    {"properties": '{"delivery_mode": 7}'},
    {"properties": '{"user_id": "somebody-else"}'},
    {"properties": '{"unheard_of": 1}'},
    {"properties": '{"x": {"priority": 5}}'},
    {"properties": '{"x": "priority"}'},
]
#: RabbitMQ 3 ends the connection over it, later ones refuse the declaration and take the message.
UNKNOWN_TYPE = {"declare": '[{"kind": "exchange", "name": "x", "type": "nonsense"}]'}
#: RabbitMQ closes the channel over it, where the relay is told to let it pass.
ANOTHER_USER: dict[str, Any] = {"properties": '{"user_id": "somebody-else"}'}


@pytest.mark.smoke
@pytest.mark.fault(32)
def test_bodies_beyond_the_brokers_limit(lab: Lab, rabbit: RabbitQueue) -> None:
    """406 closes the channel over one of a batch: it is buried at once, and nobody is suspected."""
    with largest_message(rabbit.broker.node, LIMIT):
        relay = lab.relay()
        with lab.fault(lambda: lab.run("SELECT 1 FROM outbox.dead")):
            for _ in range(3):
                lab.commit(200)
                lab.commit(2, doomed=True, padding=LIMIT)
            lab.wait_until_sent()

        assert isolations(relay) == 0
        assert relay.events("broker_lost") == []
        # The broker names its limit once in each of two channels; both may be full.
        lab.finish(duplicates=2 * WINDOW)
    reasons = {reason for (reason,) in lab.run("SELECT last_error FROM outbox.dead")}
    assert {reason.startswith("too_large: ") for reason in reasons} == {True}
    assert {f"({LIMIT} bytes, its max_message_size)" in reason for reason in reasons} == {True}


@pytest.mark.fault(32)
def test_large_rows_among_ten_thousand_good_ones(lab: Lab, rabbit: RabbitQueue) -> None:
    """Twenty of 17 MiB, where the broker takes 16: nobody waits for them, nor they for long."""
    usual = {
        "OUTBOX_WINDOW": "4000",
        "OUTBOX_BATCH_SIZE": "500",
        "OUTBOX_LEASE": "10s",
        "OUTBOX_CONFIRM_TIMEOUT": "30s",
        "OUTBOX_STATEMENT_TIMEOUT": "10s",
    }
    with largest_message(rabbit.broker.node, 16 * MEGABYTE):
        relay = lab.relay(usual)
        lab.under_way(1)
        alone = seconds_until_all_arrive(lab, lab.commit(10_000))
        relay.stop()
        good: set[str] = set()
        with lab.fault(lambda: lab.run("SELECT 1 FROM outbox.dead")):
            for _ in range(10):
                good |= lab.commit(1000)
                lab.commit(2, doomed=True, padding=17 * MEGABYTE)
            relay = lab.relay(usual)
            start = monotonic()
            behind = seconds_until_all_arrive(lab, good)
            lab.wait_until_sent()
        buried = monotonic() - start

    assert relay.events("broker_lost") == []
    lab.finish(
        duplicates=2 * 4000,
        note=f"good ones in {behind:.1f} s, {alone:.1f} s without; large dead in {buried:.1f} s",
    )


@pytest.mark.smoke
@pytest.mark.fault(35)
@pytest.mark.parametrize("exchanges", ["*", "amq.default, x"])
def test_rows_written_by_hand(broker_lab: Lab, exchanges: str) -> None:
    """Each is refused by the table or buried with a reason; a thousand others go their way."""
    lab, refused = broker_lab, 0
    narrow = isinstance(lab.queue, RabbitQueue)
    old = isinstance(lab.queue, RabbitQueue) and version(lab.queue.broker.node.root) < "4"
    rows = [(row, True) for row in BY_HAND] + [(row, narrow) for row in AMQP_MINDS]
    rows.append((UNKNOWN_TYPE, old))
    lab.commit(1, headers='{"x": "\\u0000"}')  # strange, and allowed
    for columns, doomed in rows:
        lab.commit(50)
        try:
            lab.commit(1, doomed=doomed, **columns)
        except psycopg.Error:
            refused += 1
    lab.relay(OUTBOX_ALLOW_EXCHANGES=exchanges)
    with lab.fault(lambda: refused and lab.ledger.doomed):
        lab.wait_until_sent()

    assert refused + len(lab.ledger.doomed) == sum(doomed for _, doomed in rows)
    lab.finish(duplicates=0, note=f"{refused} refused by the table, {len(lab.ledger.doomed)} dead")


@pytest.mark.fault(36)
def test_very_large_rows(lab: Lab) -> None:
    """A body of 10 MB passes; of headers that no frame can hold, none is sent.

    The table refuses them by their text's length, the relay by what they become on the wire.
    """
    relay = lab.relay(OUTBOX_CONFIRM_TIMEOUT="60s")
    with lab.fault(lambda: lab.run("SELECT 1 FROM outbox.dead")):
        lab.commit(100)
        large = lab.commit(3, padding=10 * MEGABYTE)
        with pytest.raises(psycopg.errors.CheckViolation):
            lab.commit(2, headers=json.dumps({"x": "y" * 200_000}))
        lab.commit(2, doomed=True, headers=json.dumps({"x": "y" * 131_060}))
        lab.commit(100)
        lab.wait_until_sent()

    lab.finish(duplicates=0, note=f"{peak_memory(relay) // MEGABYTE} MB at most")
    assert large <= lab.queue.arrived().keys()


@pytest.mark.fault(36)
def test_large_headers_and_declarations(lab: Lab) -> None:
    """Small bodies, and with each 160 kB of the rest: what is in memory is bounded by all of it."""
    declare = '[{"kind": "queue", "name": "celery", "routing_key": "celery"}'
    declare += " " * 100_000 + "]"
    headers = json.dumps({"task": "shop.bill", "x": "y" * 60_000})
    lab.commit(1500, headers=headers, declare=declare)
    with lab.fault(lambda: lab.sent() > 0, count=0):
        relay = lab.relay(
            OUTBOX_BATCH_SIZE="500", OUTBOX_WINDOW="4000", OUTBOX_CONFIRM_TIMEOUT="60s"
        )
        lab.wait_until_sent()

    peak = peak_memory(relay)
    assert peak < 300 * MEGABYTE
    lab.finish(duplicates=0, note=f"{peak // MEGABYTE} MB at most, for 240 MB of rows")


@pytest.mark.fault(37)
@pytest.mark.parametrize("poison", [1000, 750])
def test_a_poison_storm(lab: Lab, rabbit: RabbitQueue, poison: int) -> None:
    """A thousand that kill a channel, then a thousand good ones: these do not wait for those.

    With 750, good ones share a batch with the last of them, and its suspicion.
    """
    usual = {
        "OUTBOX_WINDOW": "4000",
        "OUTBOX_BATCH_SIZE": "500",
        "OUTBOX_ALLOW_RESERVED": "user_id",
    }
    relay = lab.relay(usual)
    lab.under_way(1)
    alone = seconds_until_all_arrive(lab, lab.commit(1000))
    relay.stop()
    with lab.fault(lambda: isolations(relay)):
        doomed = lab.commit(poison, doomed=True, **ANOTHER_USER)
        good = lab.commit(1000)
        relay = lab.relay(usual)
        behind = seconds_until_all_arrive(lab, good)
        buried = len(lab.run("SELECT 1 FROM outbox.dead"))
        start = monotonic()
        lab.wait_until_sent()
        rest = monotonic() - start

    assert buried < len(doomed) or poison == 750
    lab.finish(
        duplicates=isolations(relay) * 4000,
        note=f"good ones in {behind:.1f} s, {alone:.1f} s without; the rest {rest:.1f} s later",
    )


def seconds_until_all_arrive(lab: Lab, ids: set[str]) -> float:
    """Wait for all of them, and say for how long."""
    start = monotonic()
    wait_until(lambda: lab.queue.arrived().keys() >= ids, DEADLINE, "all of them")
    return monotonic() - start
