"""Whether what was confirmed in the last hour is finished, where workers leave receipts."""

from collections import Counter
from datetime import timedelta
from typing import Final

from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.core.guard import Known, is_known
from outbox_relay.core.place import Bounds, Broker, Place
from outbox_relay.errors import SchemaError, StoreLost
from outbox_relay.operator import queries, unknown
from outbox_relay.operator.audit import Found, ask, find, placed
from outbox_relay.operator.doctor.context import Context
from outbox_relay.operator.inbox import inbox_of
from outbox_relay.operator.missing import Inquiry, Missing
from outbox_relay.operator.text import printable

NAME: Final = "effects"
#: Looked at is what was confirmed between these, for so many seconds, up to so many missing.
SINCE: Final = timedelta(hours=1)
OLDER_THAN: Final = timedelta(minutes=5)
PATIENCE: Final = 3.0
MAX_MISSING: Final = 5_000
#: And so much of what a Redis has, for so long.
SEARCH: Final = Bounds(50_000, 3.0)
#: The most tasks that are named.
MAX_SHOWN: Final = 5
REMEDY: Final = (
    "outbox-relay audit says of each where it is, and outbox-relay replay --missing sends again "
    "what nobody has"
)


def check(context: Context) -> list[Finding]:
    """What is missing, by task."""
    session, settings = context.session, context.settings
    now = session.value(queries.NOW)
    inquiry = Inquiry(now - OLDER_THAN, now - SINCE)
    try:
        found = find(settings, inquiry, within=PATIENCE, most=MAX_MISSING)
        with inbox_of(session, settings) as inbox:
            known = unknown.known_by(inbox) if found.missing else {}
    except (StoreLost, SchemaError) as error:
        return [ok(NAME, f"not known: {error}")]
    broker = ask(settings, found, bounds=SEARCH) if found.missing else Broker({})
    return [judge(found, broker, known)]


def judge(found: Found, broker: Broker, known: Known) -> Finding:
    """What is gone is a problem; what may wait or run is worth a look."""
    much = f"{found.checked:,} messages confirmed in the last hour"
    at_least = ""
    if not found.complete:
        much, at_least = f"the oldest {much}", "at least "
    if not found.checked:
        return ok(
            NAME, "nothing to look at: no task with receipts was confirmed 5 to 60 minutes ago"
        )
    if not found.missing:
        return ok(NAME, f"of {much}, workers have finished all")
    named = Counter(_named(each, known) for each in found.missing)
    shown = "; ".join(f"{count:,} x {name}" for name, count in named.most_common(MAX_SHOWN))
    more = f", and {len(named) - MAX_SHOWN} more" if len(named) > MAX_SHOWN else ""
    places = Counter(where.place for _, where in placed(found, broker))
    where = ", ".join(f"{place} {count:,}" for place, count in places.most_common())
    if broker.search is not None and not broker.search.complete:
        where += f"; of what the broker has, {broker.search.read:,} messages were looked at"
    text = f"of {much}, no worker has finished {at_least}{len(found.missing):,}: {shown}{more}"
    gone = places[Place.GONE] > 0
    return (problem if gone else warn)(NAME, f"{text} ({where})", REMEDY)


def _named(missing: Missing, known: Known) -> str:
    name = printable(missing.task)
    if is_known(known, missing.queues, missing.task):
        return name
    return f"{name}, which no live worker of its queue knows"
