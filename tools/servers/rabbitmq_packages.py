"""RabbitMQ without root: the machine's own, or the distribution's packages in the checkout."""

import os
from pathlib import Path
from typing import Final

from servers import debian

_SERVER = "usr/lib/rabbitmq/bin/rabbitmq-server"

#: RabbitMQ and Erlang, about 40 MB.
BUNDLE: Final = debian.Bundle(
    title="RabbitMQ",
    package="rabbitmq-server",
    prefixes=("erlang-", "rabbitmq-"),
    way_out="Install it (apt-get install rabbitmq-server), or do without: RABBITMQ=off for the "
    "tests, BROKER=redis for the demo.",
)


def find_or_fetch() -> Path:
    """Return the root of an installation: the machine's, the unpacked one, or unpack it now."""
    for root in (Path("/"), debian.CACHE / BUNDLE.folder):
        if os.access(root / _SERVER, os.X_OK):
            return root
    return fetch(debian.CACHE)


def fetch(cache: Path) -> Path:
    """Download and unpack RabbitMQ under a folder; whoever comes second waits."""
    return debian.fetch(cache, BUNDLE)
