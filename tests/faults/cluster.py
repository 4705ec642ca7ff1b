"""A quorum queue with a replica on each node of a cluster, and the ways to divide the nodes."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from servers import RabbitCluster, RabbitMQ
from tests.faults.queues import RabbitQueue
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import wait_until

_SECONDS: Final = 60.0
_NAME: Final = "celery"
_ARGUMENTS: Final = {"x-queue-type": "quorum"}
#: What its messages ask for, as those of an app do whose queues are quorum queues.
COLUMNS: Final[dict[str, Any]] = {
    "declare": json.dumps(
        [{"kind": "queue", "name": _NAME, "routing_key": _NAME, "queue_arguments": _ARGUMENTS}]
    )
}
_INFO: Final = (
    '{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{name}">>)), '
    "rabbit_amqqueue:info(Q, [{item}])"
)
_DO: Final = (
    '{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{name}">>)), {what}'
)
#: RabbitMQ 3.10 knows of no kinds of members.
_ADD: Final = (
    'Queue = [<<"{vhost}">>, <<"{name}">>, {node}], '
    "Kind = case erlang:function_exported(rabbit_quorum_queue, add_member, 5) of "
    "true -> [promotable]; false -> [] end, "
    "apply(rabbit_quorum_queue, add_member, Queue ++ Kind ++ [10000])"
)
_CUT: Final = "[{erlang:set_cookie(N, wrong), erlang:disconnect_node(N)} || N <- nodes()]"
_HEAL: Final = "[{{erlang:set_cookie(N, erlang:get_cookie()), net_adm:ping(N)}} || N <- [{others}]]"


class QuorumQueue(RabbitQueue):
    """Implements `Queue`; what is in it is taken out through the first node."""

    def __init__(
        self, cluster: RabbitCluster, leader: RabbitMQ, vhost: str, replicas: int = 3
    ) -> None:
        """Declare it where it is to be led from: at the node of the client that declares."""
        super().__init__(Broker(cluster.nodes[0], vhost))
        self._nodes = cluster.nodes
        size = {"x-quorum-initial-group-size": replicas} if replicas < len(self._nodes) else {}
        Broker(leader, vhost).declare(_NAME, **_ARGUMENTS, **size)
        wait_until(lambda: len(self.online) == replicas, _SECONDS, "its replicas")
        assert self.leader == leader.node

    def urls(self, first: RabbitMQ) -> str:
        """All nodes for the relay, beginning with the one that it shall connect to."""
        at = self._nodes.index(first)
        nodes = (*self._nodes[at:], *self._nodes[:at])
        return ";".join(node.url(self.broker.vhost) for node in nodes)

    def arrived(self, queue: str = _NAME) -> Counter[str]:
        """As ever, but that a count of 0 is not believed: it stands for "no answer in 250 ms", too.

        Neither is a replica asked that may lag behind: what is fetched comes from the majority.
        """
        taken = super().arrived(queue)
        while self.broker.has(queue) and (left := self.broker.take_all(queue)):
            taken.update(message.body[:36].decode() for message in left)
            taken = super().arrived(queue)
        return taken

    def wait_whole(self) -> None:
        """Wait until it has a leader, and a replica on each node."""
        wait_until(
            lambda: self.leader and len(self.online) == len(self._nodes),
            _SECONDS,
            "a replica on each node",
        )

    @property
    def leader(self) -> str:
        """The node that leads; nothing while there is none."""
        return "".join(self._ask("leader"))

    @property
    def online(self) -> set[str]:
        """The nodes that have a replica which takes part."""
        return self._ask("online")

    def move_to(self, node: RabbitMQ) -> None:
        """Have another node lead."""
        target = f"'{node.node}'"
        moved = _DO.format(
            vhost=self.broker.vhost,
            name=_NAME,
            what=f"rabbit_quorum_queue:transfer_leadership(Q, {target})",
        )
        wait_until(
            lambda: self.broker.node.evaluate(moved) and self.leader == node.node,
            _SECONDS,
            f"{node.node} as the leader",
        )

    def grow_to(self, node: RabbitMQ) -> None:
        """Give it one more replica: asked again while the queue answers that it is at something."""
        add = _ADD.format(vhost=self.broker.vhost, name=_NAME, node=f"'{node.node}'")
        wait_until(
            lambda: node.node in self.online or not self.broker.node.evaluate(add),
            _SECONDS,
            f"a replica on {node.node}",
        )

    def _ask(self, item: str) -> set[str]:
        """The nodes that the first one names as `leader` or `online`."""
        question = _INFO.format(vhost=self.broker.vhost, name=_NAME, item=item)
        return set(re.findall(r"\w+@localhost", self.broker.node.evaluate(question)))


def handle_partitions(cluster: RabbitCluster, how: str) -> None:
    """What nodes do that see fewer than a majority: `pause_minority`, or `ignore` it."""
    for node in cluster.nodes:
        node.evaluate(f"ok = application:set_env(rabbit, cluster_partition_handling, {how})")


@contextmanager
def cut_off(node: RabbitMQ, cluster: RabbitCluster) -> Iterator[None]:
    """No node hears of another across the cut; clients reach all of them."""
    others = ", ".join(other.node for other in cluster.nodes if other is not node)
    node.evaluate(_CUT)
    try:
        yield
    finally:
        node.evaluate(_HEAL.format(others=others))
