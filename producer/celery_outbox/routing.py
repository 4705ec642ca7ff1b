"""The route of a task, noted before Celery rewrites it: the outbox holds every eta itself.

Where an app has a quorum queue, Celery (5.5 and newer) sends each `eta` or `countdown` to
`celery_delayed_27`, with the delay in the routing key, and the broker holds it. There it can
neither be seen nor taken back, those exchanges exist only once a worker has started, and what comes
out of them is lost where its queue is not bound to them yet. A stored task keeps its route.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from celery.utils.time import maybe_iso8601
from kombu import Queue

from celery_outbox.errors import UnsupportedOption
from celery_outbox.statements.commands import Outcome

#: The options in which Celery names a route: its router settles them, delaying rewrites them.
ROUTE_OPTIONS: Final = ("queue", "exchange", "exchange_type", "routing_key")
#: The option in which the Passage of a send reaches the sender, which takes it out.
PASSAGE: Final = "celery_outbox_passage"
#: How the exchanges begin through which a broker delays; the last of them leads to the queues.
NATIVE_DELAY: Final = "celery_delayed_"
DELIVERY: Final = "celery_delayed_delivery"
#: The delay in front of a routing key: 28 binary digits, each a word.
DELAY: Final = re.compile(r"(?:[01]\.){28}")
#: Celery's delayed delivery raises on less than one second; the second one is for computing.
MIN_DELAY_SECONDS: Final = 2


class Passage:
    """One send on its way through Celery, which hands on options, and no answers.

    It is the send's router, whose answer has the route once more, where nobody rewrites it; as an
    option it comes to the sender, which leaves the outcome here for whoever sent.
    """

    def __init__(self, router: Any, countdown: object, eta: object) -> None:
        self._router = router
        self._short = _is_short(countdown, eta)
        self.noted: dict[str, Any] = {}
        #: Of what was stored; None of what went to the broker.
        self.outcome: Outcome | None = None

    def route(self, options: Mapping[str, Any], name: str, *args: Any, **kw: Any) -> dict[str, Any]:
        """Return the options of a send, routed. Raises UnsupportedOption."""
        routed: dict[str, Any] = self._router.route(options, name, *args, **kw)
        if routed.get("dedup_key") is not None and options.get("dedup_key") is None:
            reason = "give it where the task is sent, not in a route"
            raise UnsupportedOption.about(task=name, option="dedup_key=", reason=reason)
        self.noted = {part: routed[part] for part in ROUTE_OPTIONS if part in routed}
        if self._short:  # Celery leaves alone what goes to a direct exchange
            routed = {name: value for name, value in routed.items() if name != "queue"}
            routed |= {"exchange": "", "exchange_type": "direct", "routing_key": ""}
        return routed | {PASSAGE: self}


def undelayed(
    noted: Mapping[str, Any], options: Mapping[str, Any], queues: Mapping[str, Queue]
) -> dict[str, Any]:
    """Return the route of a send: as `noted`, or else in its options, with no delay in it."""
    route = dict(noted) or {part: options[part] for part in ROUTE_OPTIONS if part in options}
    if not is_native_delay(route.get("exchange")):
        return route
    # The retry of a task that a broker had delayed: its delivery says where it came out.
    key = DELAY.sub("", route.get("routing_key") or "", count=1)
    fed = [queue for queue in queues.values() if _is_fed_by_delay(queue, key)]
    return {"queue": fed[0]} if len(fed) == 1 else {"exchange": DELIVERY, "routing_key": key}


def is_native_delay(exchange: object) -> bool:
    """Tell whether a broker delays what is sent to an exchange, given as Celery gives it."""
    return str(getattr(exchange, "name", exchange)).startswith(NATIVE_DELAY)


def replace(options: dict[str, Any], route: Mapping[str, Any]) -> None:
    """Have a send take `route`, whatever its options said."""
    for part in ROUTE_OPTIONS:
        options.pop(part, None)
    options.update(route)


def _is_short(countdown: object, eta: object) -> bool:
    """Tell whether a delay is one that Celery's delayed delivery may raise on."""
    seconds = countdown
    time = maybe_iso8601(eta) if isinstance(eta, str | datetime) else None
    if time is not None:  # by a worker, too, a naive one is read as UTC
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return isinstance(seconds, int | float) and 0 < seconds < MIN_DELAY_SECONDS


def _is_fed_by_delay(queue: Queue, key: str) -> bool:
    """Tell whether Celery's workers bind a queue so that delayed messages with a key reach it."""
    return (
        queue.routing_key == key and queue.exchange is not None and queue.exchange.type != "direct"
    )
