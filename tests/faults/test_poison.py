"""Faults 32 and 35 to 37: rows that no broker takes, however they got into the table."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import psycopg
import pytest

from servers import RabbitMQ
from tests.faults.evidence import isolations
from tests.faults.lab import DEADLINE, WINDOW, Lab
from tests.faults.queues import RabbitQueue
from tests.faults.relay_process import peak_memory
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
    {"declare": '[{"kind": "exchange", "name": "x", "type": "nonsense"}]'},
]


@pytest.mark.smoke
@pytest.mark.fault(32)
def test_bodies_beyond_the_brokers_limit(lab: Lab, rabbit: RabbitQueue) -> None:
    """406 closes the channel over one of a batch: it is found and buried, nobody else is."""
    with limited(rabbit.broker.node):
        relay = lab.relay()
        with lab.fault(lambda: isolations(relay)):
            for _ in range(3):
                lab.commit(200)
                lab.commit(2, doomed=True, padding=LIMIT)
            lab.wait_until_sent()

        lab.finish(duplicates=isolations(relay) * WINDOW)
    assert {"406" in reason for (reason,) in lab.run("SELECT last_error FROM outbox.dead")} == {
        True
    }


@pytest.mark.smoke
@pytest.mark.fault(35)
@pytest.mark.parametrize("exchanges", ["*", "amq.default, x"])
def test_rows_written_by_hand(broker_lab: Lab, exchanges: str) -> None:
    """Each is refused by the table or buried with a reason; a thousand others go their way."""
    lab, refused = broker_lab, 0
    narrow = isinstance(lab.queue, RabbitQueue)
    rows = [(row, True) for row in BY_HAND] + [(row, narrow) for row in AMQP_MINDS]
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


@pytest.mark.fault(37)
@pytest.mark.parametrize("poison", [1000, 750])
def test_a_poison_storm(lab: Lab, rabbit: RabbitQueue, poison: int) -> None:
    """A thousand that kill a channel, then a thousand good ones: these do not wait for those.

    With 750, good ones share a batch with the last of them, and its suspicion.
    """
    usual = {"OUTBOX_WINDOW": "4000", "OUTBOX_BATCH_SIZE": "500"}
    relay = lab.relay(usual)
    lab.under_way(1)
    alone = seconds_until_all_arrive(lab, lab.commit(1000))
    relay.stop()
    with limited(rabbit.broker.node), lab.fault(lambda: isolations(relay)):
        doomed = lab.commit(poison, doomed=True, padding=LIMIT)
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


@contextmanager
def limited(node: RabbitMQ) -> Iterator[None]:
    """The node takes no body beyond LIMIT on channels that are opened within the block."""
    key = "rabbit, max_message_size"
    before = node.evaluate(f"application:get_env({key})").strip()
    node.evaluate(f"application:set_env({key}, {LIMIT})")
    try:
        yield
    finally:
        usual = (
            before.removeprefix("{ok,").removesuffix("}") if before != "undefined" else "134217728"
        )
        node.evaluate(f"application:set_env({key}, {usual})")
