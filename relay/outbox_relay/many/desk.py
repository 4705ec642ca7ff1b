"""What an outbox among many keeps while its seats come and go."""

from dataclasses import dataclass, field
from threading import Lock

from outbox_relay.broker.publisher import Open
from outbox_relay.loop.homecoming import Homecoming
from outbox_relay.loop.incidents import Outage
from outbox_relay.many.outbox import Outbox
from outbox_relay.observe.health import Health
from outbox_relay.observe.metrics import Metrics
from outbox_relay.operator.effects import Effects


@dataclass(slots=True)
class Desk:
    """What the seats of an outbox share, one after another, and what its chores are done with."""

    outbox: Outbox
    metrics: Metrics
    health: Health
    database: Outage
    broker: Outage
    open_publisher: Open
    homecoming: Homecoming
    effects: Effects
    #: Whether it has had anything to do since its last chores.
    active: bool = False
    #: Whether it has a seat; and whether it has had one since it was counted last.
    seated: bool = False
    moved: bool = True
    #: Where its messages go, as its last chores have seen.
    queues: tuple[str, ...] = ()
    #: No worker leaves receipts, as far as is known until then, in monotonic seconds.
    unseen_until: float = 0.0
    #: Held while its chores are done, which may take longer than the pause between two turns.
    turn: Lock = field(default_factory=Lock)
