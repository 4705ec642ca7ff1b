"""Three private RabbitMQ nodes that are one broker, which outlives any of them.

They share an epmd, a cookie and a login. Each joins those before it.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from servers.epmd import Epmd
from servers.rabbitmq import Membership, RabbitMQ
from servers.rabbitmq_packages import find_or_fetch

_SIZE: Final = 3
_DISCOVERY: Final = {"cluster_formation.peer_discovery_backend": "classic_config"}


class RabbitCluster:
    """Nodes that can be killed, frozen and started one by one."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str] | None = None, root: Path | None = None
    ) -> None:
        """Prepare the nodes; ``settings`` are lines of rabbitmq.conf for each of them."""
        root = root or find_or_fetch()
        self.folder = folder = folder.resolve()
        self._epmd = Epmd(folder / "epmd", root)
        names = [f"outbox{number}@localhost" for number in range(1, _SIZE + 1)]
        self.nodes: list[RabbitMQ] = []
        for count, name in enumerate(names, 1):
            # Of those after it a node is not told: it would wait for them before it begins alone.
            peers = {
                f"cluster_formation.classic_config.nodes.{number}": peer
                for number, peer in enumerate(names[:count], 1)
            }
            node = RabbitMQ(
                folder / name.partition("@")[0],
                {**_DISCOVERY, **peers, **(settings or {})},
                root,
                Membership(name, self._epmd, folder),
            )
            self.nodes.append(node)

    def start(self) -> Self:
        """Start the nodes that do not run, one after the other: two that are new could not agree.

        Of nodes that were killed all at once, Mnesia wants the one first that was there last.
        """
        self._epmd.start()
        for node in self.nodes:
            if not node.is_running:
                node.start()
        return self

    def discard(self) -> None:
        """End the nodes and delete what they have."""
        for server in (*self.nodes, self._epmd):
            server.discard()
        shutil.rmtree(self.folder)
