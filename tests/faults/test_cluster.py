"""Fault 48: a cluster of three nodes with a quorum queue loses one of them, or two.

The relay is told of all three. Only what a majority has on its disks is confirmed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, LiteralString

import pytest
from kombu import Connection, Queue

from outbox_relay.broker.amqp.publisher import AmqpPublisher
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.core.message import Reason
from servers import RabbitCluster, RabbitMQ
from servers.rabbitmq_packages import version
from tests.faults.cluster import COLUMNS, QuorumQueue, cut_off, handle_partitions
from tests.faults.lab import DEADLINE, HASTE, Lab, LabWith
from tests.fixtures.programs import Relay
from tests.fixtures.waiting import wait_until
from tests.relay.broker.amqp.line import Line
from tests.relay.messages import a_message

#: One cluster for all of them, also where tests are spread over processes.
pytestmark = pytest.mark.xdist_group("cluster")

ROWS: Final = 10_000
#: Sent before a fault, and again after it.
SOME: Final = 1_000
#: Longer than a queue takes to choose another leader: no confirm is overdue.
PATIENT: Final = "30s"
HASTY: Final = HASTE["OUTBOX_CONFIRM_TIMEOUT"]
PAUSE: LiteralString = """
SELECT extract(epoch FROM max(pause))::float8
FROM (SELECT sent_at - lag(sent_at) OVER (ORDER BY sent_at) AS pause FROM outbox.sent) AS sent
"""


@pytest.fixture(scope="module")
def three(rabbitmq_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitCluster]:
    """A cluster that is killed, divided and frozen."""
    cluster = RabbitCluster(tmp_path_factory.mktemp("cluster"), root=rabbitmq_root)
    try:
        yield cluster.start()
    finally:
        cluster.discard()


@pytest.fixture
def cluster(three: RabbitCluster) -> RabbitCluster:
    """The same with all its nodes, whatever became of them in the test before."""
    three.start()
    handle_partitions(three, "pause_minority")
    return three


@pytest.fixture
def vhost(cluster: RabbitCluster) -> Iterator[str]:
    """A virtual host of the cluster."""
    name = cluster.nodes[0].create_vhost()
    yield name
    cluster.start()
    cluster.nodes[0].delete_vhost(name)


@pytest.mark.fault(48)
@pytest.mark.parametrize("killed", ["leader", "relay's node", "both in one"])
def test_a_node_is_killed(
    cluster: RabbitCluster, vhost: str, lab_with: LabWith, killed: str
) -> None:
    """In mid-drain: what is left of the cluster takes all of it, before the node is back."""
    leader, other, _ = cluster.nodes
    entrance = leader if killed == "both in one" else other
    victim = leader if killed == "leader" else entrance
    queue = QuorumQueue(cluster, leader, vhost)
    lab, relay = a_drain(lab_with, queue, entrance, PATIENT)
    with lab.producer():
        with lab.fault(lambda: not victim.is_running):
            victim.kill()
        pause = goes_on(lab)
    lab.wait_until_sent()
    assert bool(relay.events("broker_lost")) == (victim is entrance)
    victim.start()
    queue.wait_whole()

    lab.finish(note=f"nothing sent for {pause:.1f} s")


@pytest.mark.fault(48)
@pytest.mark.parametrize("handling", ["ignore", "pause_minority"])
def test_two_nodes_are_killed(
    cluster: RabbitCluster, vhost: str, lab_with: LabWith, handling: str
) -> None:
    """Nothing is confirmed and nothing charged, until one of them is back.

    Left alone, the third node takes connections and messages, or none.
    """
    survivor, *victims = cluster.nodes
    if handling == "pause_minority" and version(survivor.root) >= "4.3":
        pytest.skip("RabbitMQ 4.3 has no partition handling left to set: its nodes never pause")
    handle_partitions(cluster, handling)
    queue = QuorumQueue(cluster, survivor, vhost)
    lab, relay = a_drain(lab_with, queue, survivor)
    with lab.fault(lambda: relay.events("broker_lost"), count=len(victims)):
        for node in victims:
            node.kill()
        relay.wait_for_event("broker_lost", DEADLINE)
        if handling == "ignore":
            tries_in_vain(relay)
        before = lab.sent()
        lab.commit(SOME)
        if handling == "ignore":
            tries_in_vain(relay)
        else:
            assert not relay.ready()
        assert lab.sent() == before
        assert lab.attempts() == 0
        victims[0].start()
    lab.wait_until_sent()
    victims[1].start()
    queue.wait_whole()

    lab.finish()


@pytest.mark.fault(48)
def test_a_node_is_cut_off(cluster: RabbitCluster, vhost: str, lab_with: LabWith) -> None:
    """Its clients still reach it: it pauses, and the relay goes on at one of the other two."""
    leader, _, lone = cluster.nodes
    queue = QuorumQueue(cluster, leader, vhost)
    lab, relay = a_drain(lab_with, queue, lone, PATIENT)
    with lab.producer(), lab.fault(lambda: relay.events("broker_lost")), cut_off(lone, cluster):
        relay.wait_for_event("broker_lost", DEADLINE)
        pause = goes_on(lab)
    queue.wait_whole()

    lab.finish(note=f"nothing sent for {pause:.1f} s")


@pytest.mark.fault(48)
def test_a_node_is_frozen(cluster: RabbitCluster, vhost: str, lab_with: LabWith) -> None:
    """No confirm by the deadline: the relay goes on at another node."""
    leader, _, victim = cluster.nodes
    queue = QuorumQueue(cluster, leader, vhost)
    lab, relay = a_drain(lab_with, queue, victim)
    with lab.producer(), lab.fault(lambda: relay.events("broker_lost")), victim.frozen():
        relay.wait_for_event("broker_lost")
        pause = goes_on(lab)
    queue.wait_whole()

    lab.finish(note=f"nothing sent for {pause:.1f} s: 2 s for a confirm, 5 s for a greeting")


@pytest.mark.fault(48)
def test_the_leader_is_moved(cluster: RabbitCluster, vhost: str, lab_with: LabWith) -> None:
    """From node to node, as an operator balances queues: nobody is given up for it."""
    leader, second, third = cluster.nodes
    queue = QuorumQueue(cluster, leader, vhost)
    lab, relay = a_drain(lab_with, queue, second, PATIENT)
    with lab.producer():
        for node in (second, third, leader):
            with lab.fault(lambda node=node: queue.leader == node.node):  # type: ignore[misc]  # mypy infers no lambda with a default
                queue.move_to(node)
            pause = goes_on(lab)
    lab.wait_until_sent()
    assert not relay.events("broker_lost")

    lab.finish(note=f"nothing sent for {pause:.1f} s")


@pytest.mark.fault(48)
def test_a_rolling_restart(cluster: RabbitCluster, vhost: str, lab_with: LabWith) -> None:
    """Each node in turn is stopped in order and started again, as for an upgrade."""
    queue = QuorumQueue(cluster, cluster.nodes[0], vhost)
    lab, relay = a_drain(lab_with, queue, cluster.nodes[0], PATIENT)
    with lab.producer():
        for node in cluster.nodes:
            with lab.fault(lambda node=node: not node.is_running):  # type: ignore[misc]  # mypy infers no lambda with a default
                node.stop()
            pause = goes_on(lab)
            node.start()
            queue.wait_whole()
    lab.wait_until_sent()
    assert relay.events("broker_lost")

    lab.finish(note=f"nothing sent for {pause:.1f} s at most")


@pytest.mark.fault(48)
def test_a_queue_grows_a_replica(cluster: RabbitCluster, vhost: str, lab_with: LabWith) -> None:
    """From one replica to three while messages pass through it."""
    leader, *others = cluster.nodes
    queue = QuorumQueue(cluster, leader, vhost, replicas=1)
    lab, relay = a_drain(lab_with, queue, others[0], PATIENT)
    with lab.producer():
        for node in others:
            with lab.fault(lambda node=node: node.node in queue.online):  # type: ignore[misc]  # mypy infers no lambda with a default
                queue.grow_to(node)
            pause = goes_on(lab)
    queue.wait_whole()
    lab.wait_until_sent()
    assert not relay.events("broker_lost")

    lab.finish(note=f"nothing sent for {pause:.1f} s")


@pytest.mark.fault(48)
def test_one_node_is_short_of_memory(cluster: RabbitCluster, vhost: str, lab_with: LabWith) -> None:
    """Then no node of the cluster takes anything, and the relay waits where it is."""
    leader, entrance, short = cluster.nodes
    queue = QuorumQueue(cluster, leader, vhost)
    lab, relay = a_drain(lab_with, queue, entrance, PATIENT)
    with lab.producer():
        with lab.fault(lambda: relay.events("broker_blocked")):
            short.ctl("set_vm_memory_high_watermark", "0.000001")
            try:
                relay.wait_for_event("broker_blocked")
            finally:
                short.ctl("set_vm_memory_high_watermark", "0.6")
        goes_on(lab)
    lab.wait_until_sent()
    assert not relay.events("broker_lost")
    assert relay.events("broker_unblocked")

    lab.finish()


@pytest.mark.fault(48)
def test_the_home_of_a_classic_queue_is_down(cluster: RabbitCluster, vhost: str) -> None:
    """What was known to exist is nacked, or comes back as NO_ROUTE: an outage, and no attempt."""
    entrance, home, _ = cluster.nodes
    with Connection(home.url(vhost)) as connection:
        Queue("at-home", queue_arguments={"x-queue-type": "classic"})(
            connection.default_channel
        ).declare()
    url = entrance.url(vhost)
    line = Line(AmqpPublisher(url, Topology(url, declare=True), DEADLINE))
    try:
        line.publish(a_message(id=1, routing_key="at-home"))
        line.land()
        home.kill()
        while len(line.refused) < 5:
            line.publish(a_message(id=2, routing_key="at-home"))
            line.land()
    finally:
        line.publisher.close()

    assert {refusal.reason for refusal in line.refused} <= {Reason.NACKED, Reason.UNANSWERED}


def a_drain(
    lab_with: LabWith, queue: QuorumQueue, entrance: RabbitMQ, confirm_timeout: str = HASTY
) -> tuple[Lab, Relay]:
    """A backlog, and a relay in the middle of it that is connected to a certain node."""
    lab = lab_with(queue)
    lab.ledger.columns = COLUMNS
    lab.commit(ROWS)
    relay = lab.relay(
        direct=True,
        OUTBOX_BROKER_URL=queue.urls(entrance),
        OUTBOX_CONFIRM_TIMEOUT=confirm_timeout,
    )
    wait_until(lambda: lab.sent() > SOME, DEADLINE, "a beginning")
    assert not relay.events("broker_lost")
    return lab, relay


def goes_on(lab: Lab) -> float:
    """Wait until more is sent than was on its way; the longest pause so far, in seconds."""
    before = lab.sent()
    wait_until(lambda: lab.sent() > before + SOME, DEADLINE, "a relay that goes on")
    return float(lab.run(PAUSE)[0][0])


def tries_in_vain(relay: Relay) -> None:
    """Wait until it has published once more, and given that up."""
    wait_until(lambda: in_flight(relay) > 0, DEADLINE, "messages in flight")
    wait_until(lambda: in_flight(relay) == 0, DEADLINE, "the end of an attempt")


def in_flight(relay: Relay) -> float:
    """How many messages the relay waits for."""
    lines = relay.metrics().splitlines()
    [count] = [line for line in lines if line.startswith("outbox_in_flight_messages ")]
    return float(count.rpartition(" ")[2])
