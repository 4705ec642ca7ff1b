"""Where a task goes, noted before Celery rewrites it: the outbox holds every eta itself.

Where an app has a quorum queue, Celery (5.5 and newer) sends each `eta` or `countdown` to
`celery_delayed_27`, with the delay in the routing key, and the broker holds it. There it can
neither be seen nor taken back, those exchanges exist only once a worker has started, and what comes
out of them is lost where its queue is not bound to them yet. A stored task keeps its destination.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from celery.utils.time import maybe_iso8601
from kombu import Queue

#: The options in which Celery names a destination: routing settles them, delaying rewrites them.
PARTS: Final = ("queue", "exchange", "exchange_type", "routing_key")
#: The option in which they travel from the router to the sender, which takes it out.
NOTED: Final = "celery_outbox_destination"
#: How the exchanges begin through which a broker delays; the last of them leads to the queues.
NATIVE_DELAY: Final = "celery_delayed_"
DELIVERY: Final = "celery_delayed_delivery"
#: The delay in front of a routing key: 28 binary digits, each a word.
DELAY: Final = re.compile(r"(?:[01]\.){28}")
#: Celery's delayed delivery raises on less than one second; the second one is for computing.
SHORTEST_SECONDS: Final = 2


class NotingRouter:
    """Celery's router, whose answer has the destination once more, where nobody rewrites it."""

    def __init__(self, router: Any, countdown: object, eta: object) -> None:
        self._router = router
        self._short = _is_short(countdown, eta)

    def route(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Return the options of a send, routed."""
        routed: dict[str, Any] = self._router.route(*args, **options)
        noted = {part: routed[part] for part in PARTS if part in routed}
        if self._short:  # Celery leaves alone what goes to a direct exchange
            routed = {name: value for name, value in routed.items() if name != "queue"}
            routed |= {"exchange": "", "exchange_type": "direct", "routing_key": ""}
        return routed | {NOTED: noted}


def take_noted(options: dict[str, Any], queues: Mapping[str, Queue]) -> dict[str, Any]:
    """Remove from the options of a send the destination that was noted, and return it."""
    noted: dict[str, Any] = options.pop(NOTED, None) or {
        p: options[p] for p in PARTS if p in options
    }
    if not is_native_delay(noted.get("exchange")):
        return noted
    # The retry of a task that a broker had delayed: its delivery says where it came out.
    key = DELAY.sub("", noted.get("routing_key") or "", count=1)
    fed = [queue for queue in queues.values() if _is_fed_by_delay(queue, key)]
    return {"queue": fed[0]} if len(fed) == 1 else {"exchange": DELIVERY, "routing_key": key}


def is_native_delay(exchange: object) -> bool:
    """Tell whether a broker delays what is sent to an exchange, given as Celery gives it."""
    return str(getattr(exchange, "name", exchange)).startswith(NATIVE_DELAY)


def replace(options: dict[str, Any], destination: Mapping[str, Any]) -> None:
    """Have a send go to `destination`, whatever its options said."""
    for part in PARTS:
        options.pop(part, None)
    options.update(destination)


def _is_short(countdown: object, eta: object) -> bool:
    """Tell whether a delay is one that Celery's delayed delivery may raise on."""
    seconds = countdown
    time = maybe_iso8601(eta) if isinstance(eta, str | datetime) else None
    if time is not None:  # by a worker, too, a naive one is read as UTC
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return isinstance(seconds, int | float) and 0 < seconds < SHORTEST_SECONDS


def _is_fed_by_delay(queue: Queue, key: str) -> bool:
    """Tell whether Celery's workers bind a queue so that delayed messages with a key reach it."""
    return (
        queue.routing_key == key and queue.exchange is not None and queue.exchange.type != "direct"
    )
