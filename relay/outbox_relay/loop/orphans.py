"""Claimed work whose message is not to be seen: forgotten, or put off."""

from collections.abc import Sequence
from typing import Final

import structlog

from outbox_relay.core.message import Held
from outbox_relay.postgres.store import Store

log = structlog.get_logger()

#: When work of a detached slot is looked at again, in seconds.
DETACHED_DELAY: Final = 600.0


def forget(orphans: Sequence[Held], store: Store) -> None:
    """Drop work without a message, unless the message is in a table that is only detached."""
    if not orphans:
        return
    if put_off := store.park_detached(orphans, DETACHED_DELAY):
        log.warning("slot_detached", messages=put_off)
    if dropped := store.drop_orphans(orphans):
        log.warning("orphans_dropped", messages=dropped)
