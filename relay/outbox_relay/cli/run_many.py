"""`run` for all outboxes of OUTBOX_DATABASES_FILE, in one process."""

import sys
from argparse import Namespace
from contextlib import ExitStack
from typing import Final

from outbox_relay.cli.lifetime import LANDING, on_signals, spare_the_collector
from outbox_relay.errors import SettingsError
from outbox_relay.many.chores import chores
from outbox_relay.many.counting import counting
from outbox_relay.many.fleet import Fleet
from outbox_relay.many.listing import Listing
from outbox_relay.many.observe import Boards
from outbox_relay.many.queues import Queues
from outbox_relay.many.roster import Roster
from outbox_relay.observe.health import Endpoint
from outbox_relay.settings import Settings

#: How long a thread may keep the interpreter while others wait for it, in seconds. A wait for a
#: server ends in one such wait: at Python's 5 ms, who drains a million would slow all others.
SWITCH_SECONDS: Final = 0.0005


def run_many(arguments: Namespace, settings: Settings) -> int:
    """Publish until told to stop; the exit code."""
    if arguments.drain:
        raise SettingsError("--drain is for one outbox of OUTBOX_DATABASES_FILE: name it, --outbox")
    if settings.tracing:
        raise SettingsError(
            "OUTBOX_TRACING is for one outbox: set it to off, or name one with --outbox"
        )
    boards = Boards()
    fleet = Fleet(settings, boards, LANDING * settings.grace_period)
    on_signals(fleet.stop, settings.grace_period)
    sys.setswitchinterval(SWITCH_SECONDS)
    spare_the_collector()
    with ExitStack() as beside:
        beside.enter_context(Listing(Roster(settings), fleet.serve))
        shown = settings.http_address is not None
        if settings.http_address:
            beside.enter_context(Endpoint(settings.http_address, boards.health, boards.registry))
            beside.enter_context(Queues(fleet.desks))
            for counts in counting(fleet.desks):
                beside.enter_context(counts)
        for each in chores(fleet.desks, shown=shown):
            beside.enter_context(each)
        fleet.run()
    return 0
