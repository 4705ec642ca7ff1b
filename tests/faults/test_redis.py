"""Fault 46: what Redis and Valkey lose, as documented, and what they do not when asked properly.

A crash is SIGKILL: it spares what the kernel has taken, as a loss of power would not.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest
import redis

from servers import Valkey
from tests.faults.checker import judge
from tests.faults.lab import DEADLINE, Lab, LabWith
from tests.faults.proxy import Proxy, Way
from tests.faults.queues import ValkeyQueue, through
from tests.faults.results import Measured
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until

ROWS = 3000
LOSSY: dict[str, tuple[Mapping[str, str], str]] = {
    "nothing on the disk": ({"appendonly": "no"}, "append-only"),
    "eviction": ({"maxmemory": "4mb", "maxmemory-policy": "allkeys-lru"}, "evict"),
}
SAFE: dict[str, tuple[Mapping[str, str], str]] = {
    "memory, everysec": ({"appendfsync": "everysec"}, "memory"),
    "memory, always": ({"appendfsync": "always"}, "memory"),
    "fsync, everysec": ({"appendfsync": "everysec"}, "fsync"),
    "fsync, always": ({"appendfsync": "always"}, "fsync"),
}
Record = Callable[[Measured], None]


@pytest.mark.fault(46)
@pytest.mark.parametrize("case", SAFE)
def test_a_crash_with_an_append_only_file(
    lab_with: LabWith, own_valkey: OwnValkey, case: str
) -> None:
    """Killed three times under load: nothing that was confirmed is lost, nothing comes twice."""
    settings, level = SAFE[case]
    lab = lab_with(ValkeyQueue(own_valkey(settings)))
    relay = lab.relay(OUTBOX_REDIS_CONFIRM=level)
    server = lab.queue.server
    with lab.producer():
        for _ in range(3):
            lab.under_way(ROWS // 3)
            with lab.fault(lambda: relay.events("broker_lost")):
                server.kill()
                server.start()

    lab.finish(duplicates=0)


@pytest.mark.fault(46)
@pytest.mark.parametrize("case", LOSSY)
def test_a_server_that_keeps_nothing(
    lab_with: LabWith, own_valkey: OwnValkey, record: Record, case: str
) -> None:
    """Confirmed, and gone after a crash or for want of room: `doctor` calls both a problem."""
    settings, words = LOSSY[case]
    lab = lab_with(ValkeyQueue(own_valkey(settings)))
    lab.relay()
    lab.commit(ROWS, padding=2000)
    lab.wait_until_sent()
    if case != "eviction":
        lab.queue.server.kill()
        lab.queue.server.start()

    lost = judge(lab.ledger, lab.queue.arrived(), set()).lost
    doctor = lab.command("doctor")

    assert len(lost) > 0
    assert doctor.wait() == 1
    assert words in doctor.output()
    lab.ledger.committed -= lost
    record(lab.measured(note=f"{len(lost):,} of {ROWS:,} lost by the server; doctor says so"))


@pytest.mark.fault(46)
@pytest.mark.parametrize("level", ["memory", "replicated:1"])
def test_a_fail_over_to_a_replica_that_lags(
    lab_with: LabWith, own_valkey: OwnValkey, record: Record, stack: ExitStack, level: str
) -> None:
    """The primary dies while its replica hears nothing: lost is what did not wait for that one."""
    primary = own_valkey()
    way = stack.enter_context(Proxy(primary.port))
    replica = own_valkey({"replicaof": f"127.0.0.1 {way.port}", "masterauth": primary.password})
    with redis.Redis.from_url(primary.url) as client:
        wait_until(lambda: client.wait(1, 100) == 1, DEADLINE, "the replica in step")
    lab = lab_with(ValkeyQueue(primary))
    relay = lab.relay(OUTBOX_REDIS_CONFIRM=level, OUTBOX_CONFIRM_TIMEOUT="60s")
    lab.commit(500)
    lab.wait_until_sent()
    with lab.fault(lambda: way.evidence["dropped"] > 0):
        way.drop("down")
        lab.commit(500)
        wait_until(
            lambda: lab.sent() == 1000 or relay.events("broker_blocked"), DEADLINE, "what it does"
        )
        primary.kill()
    confirmed = lab.sent()
    promote(lab, replica)
    other = lab.relay(direct=True)

    lab.wait_until_sent()
    lost = judge(lab.ledger, lab.queue.arrived(), set()).lost
    other.stop()

    assert len(lost) == (confirmed - 500 if level == "memory" else 0)
    lab.ledger.committed -= lost
    record(lab.measured(note=f"{len(lost)} of 1,000 lost with the primary"))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is to be closed at the end of the test."""
    with ExitStack() as stack:
        yield stack


def promote(lab: Lab, replica: Valkey) -> None:
    """Make a replica the server of the lab."""
    with redis.Redis.from_url(replica.url) as client:
        client.replicaof("NO", "ONE")
    lab.queue = ValkeyQueue(replica)


@pytest.mark.smoke
def test_a_server_that_cannot_save(lab_with: LabWith, own_valkey: OwnValkey) -> None:
    """MISCONF: it takes no writes until a snapshot succeeds; waited out at no attempt."""
    server = own_valkey({"save": "3600 1000000", "stop-writes-on-bgsave-error": "yes"})
    lab = lab_with(ValkeyQueue(server))
    relay = lab.relay()
    lab.under_way(100)
    lab.wait_until_sent()
    snapshot = server.folder / "dump.rdb"
    snapshot.unlink(missing_ok=True)
    snapshot.mkdir()  # no file can take its place
    with redis.Redis.from_url(server.url) as client:
        client.bgsave()
        wait_until(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", DEADLINE, "err"
        )
        with lab.fault(lambda: relay.events("broker_blocked")):
            lab.commit(100)
            said = relay.wait_for_event("broker_blocked")
            assert "MISCONF" in str(said), said
            assert lab.sent() == 100
        snapshot.rmdir()
        client.bgsave()
        wait_until(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", DEADLINE, "ok"
        )

    lab.wait_until_sent()
    assert lab.attempts() == 0
    lab.finish(duplicates=0)


@pytest.mark.parametrize(("way", "after"), [("up", 30_000), ("down", 600)])
def test_a_fail_over_in_the_middle_of_a_batch(
    lab_with: LabWith, own_valkey: OwnValkey, way: Way, after: int
) -> None:
    """Cut off within a transaction, or within its reply: what the replica has decides."""
    primary = own_valkey()
    settings = {"replicaof": f"127.0.0.1 {primary.port}", "masterauth": primary.password}
    replica = own_valkey(settings)
    lab = lab_with(ValkeyQueue(primary))
    urls = f"{through(primary.url, lab.to_broker.port)};{replica.url}"
    relay = lab.relay(OUTBOX_BROKER_URL=urls)
    lab.under_way(100)
    lab.wait_until_sent()
    with (
        lab.fault(lambda: relay.events("broker_lost")),
        redis.Redis.from_url(primary.url) as client,
    ):
        lab.to_broker.reset_after(after, way)
        lab.commit(500)
        relay.wait_for_event("broker_lost")
        lab.to_broker.refuse()
        wait_until(lambda: client.wait(1, 100) == 1, DEADLINE, "the replica in step")
        primary.kill()
        promote(lab, replica)

    lab.wait_until_sent()
    assert lab.attempts() == 0
    lab.finish()
