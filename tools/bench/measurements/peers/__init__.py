"""The nearest peers, as released: each drains the same tasks to the same broker, in the same run.

Only when asked for (`PEERS=1`): each is installed into an environment of its own beside the
bench's reports, and has a table of its own in the same database. It runs by its own command or
program, tuned by its own settings: larger batches, and publishing side by side.
"""

import os
from typing import Final

from bench.measurements.peers.django_celery_outbox import DJANGO_CELERY_OUTBOX
from bench.measurements.peers.drain import measure
from bench.measurements.peers.faststream_outbox import FASTSTREAM_OUTBOX
from bench.measurements.peers.peer import Peer

PEERS: Final = (DJANGO_CELERY_OUTBOX, FASTSTREAM_OUTBOX)

__all__ = ["PEERS", "Peer", "measure", "wanted"]


def wanted() -> bool:
    """Whether somebody asked for peers."""
    return bool(os.environ.get("PEERS"))
