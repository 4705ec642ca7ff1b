"""Faults 49 to 51: what is held on purpose while a relay dies, a row is locked, a broker lies."""

import re
from collections.abc import Callable
from typing import Final, LiteralString

import psycopg
import pytest

from tests.faults.lab import DEADLINE, Lab
from tests.faults.queues import RabbitQueue
from tests.fixtures.waiting import wait_until

ROWS, LIMIT = 600, 100
QUEUE = "mail"
BOTH = ("celery", QUEUE)
_HELD: Final[LiteralString] = """
SELECT count(*) FROM outbox.parked WHERE route = chr(30) || %s AND attempts = 0
"""
_LOCKED: Final[LiteralString] = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE state = 'idle in transaction' AND query LIKE '%%outbox.bucket FOR UPDATE'
"""
#: class-id 50, method-id 11; the queue's name, and how many messages it has ready.
_DECLARE_OK: Final = b"\x00\x32\x00\x0b" + bytes([len(QUEUE)]) + QUEUE.encode()


@pytest.fixture
def mail(lab: Lab, rabbit: RabbitQueue) -> Callable[[int], None]:
    """Commit so many messages for a queue that can be held."""
    rabbit.broker.declare(QUEUE)

    def commit(count: int) -> None:
        lab.commit(count, routing_key=QUEUE, declare="[]")

    return commit


def held(lab: Lab, target: str) -> int:
    """How many wait for it."""
    return int(lab.run(_HELD, target)[0][0])


@pytest.mark.fault(49)
def test_a_relay_is_killed_while_paused(
    lab: Lab, rabbit: RabbitQueue, mail: Callable[[int], None]
) -> None:
    """Amid what it sets aside: its successor sends none of it either, until it is resumed."""
    lab.run("SELECT outbox.pause(queue => 'mail')")
    relay = lab.relay()
    lab.under_way(1)
    with lab.fault(lambda: relay.process.poll() is not None):
        mail(ROWS)
        wait_until(lambda: held(lab, "queue:mail"), DEADLINE, "some set aside")
        relay.kill()
    assert held(lab, "queue:mail") < ROWS, "it was killed too late"
    lab.relay()
    wait_until(lambda: held(lab, "queue:mail") == ROWS, DEADLINE, "all set aside")
    lab.under_way(50)
    assert rabbit.broker.depth(QUEUE) == 0
    lab.run("SELECT outbox.resume(queue => 'mail')")

    lab.finish(queues=BOTH)


@pytest.mark.fault(50)
def test_a_limit_is_locked_by_a_client_that_hangs(
    lab: Lab, rabbit: RabbitQueue, mail: Callable[[int], None]
) -> None:
    """Its messages wait, at no attempt; the others do not wait for the lock, nor the relay."""
    lab.run("SELECT outbox.set_rate(1000, queue => 'mail')")
    frozen = psycopg.connect(lab.database)
    frozen.execute("SELECT FROM outbox.bucket FOR UPDATE")
    lab.relay()
    with lab.fault(lambda: lab.run(_LOCKED) == [(1,)]):
        mail(ROWS)
        wait_until(lambda: held(lab, "rate:queue:mail") == ROWS, DEADLINE, "all of it waits")
        for _ in range(3):
            lab.under_way(100)
        assert rabbit.broker.depth(QUEUE) == 0
    frozen.close()

    lab.finish(queues=BOTH, duplicates=0)


@pytest.mark.fault(51)
@pytest.mark.parametrize("told", [0, (1 << 32) - 1])
def test_a_broker_that_lies_about_depths(
    lab: Lab, rabbit: RabbitQueue, mail: Callable[[int], None], told: int
) -> None:
    """What it calls empty is sent, what it calls full waits; others flow, and the truth ends it."""
    lie = re.compile(re.escape(_DECLARE_OK) + b"....", re.DOTALL)
    lab.to_broker.rewrite(lambda said: lie.sub(_DECLARE_OK + told.to_bytes(4, "big"), said))
    lab.relay(OUTBOX_MAX_DEPTH=str(LIMIT))
    with lab.fault(lambda: lab.to_broker.evidence["rewritten"], count=0):
        mail(ROWS)
        if told:
            wait_until(lambda: held(lab, "depth:mail") == ROWS - LIMIT, DEADLINE, "the rest waits")
            assert rabbit.broker.depth(QUEUE) == LIMIT
        else:
            wait_until(lambda: rabbit.broker.depth(QUEUE) == ROWS, DEADLINE, "all of it sent")
        lab.under_way(50)
    lab.to_broker.heal()
    wait_until(lambda: sum(rabbit.arrived(QUEUE).values()) >= ROWS, DEADLINE, "all to arrive")

    lab.finish(queues=BOTH, duplicates=0)
