"""Tasks that wait to be sent and that no live worker of their queue knows, by name."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from outbox_relay.core.guard import NOTHING, Known, is_known
from outbox_relay.core.route import queues_of
from outbox_relay.operator import queries
from outbox_relay.operator.inbox import inbox_of
from outbox_relay.operator.missing import Inquiry, Missing, Unfinished, among
from outbox_relay.operator.session import Session
from outbox_relay.postgres.workers import LIVE, MAY_READ_WORKERS
from outbox_relay.settings import Settings

#: The most that are named.
MAX_NAMED: Final = 50

#: A thousand of each kind and end: never a walk through the backlog.
SAMPLE: Final = """
WITH sample AS (
    (SELECT id, slot FROM {outbox}.ready ORDER BY id LIMIT 1000)
    UNION ALL
    (SELECT id, slot FROM {outbox}.ready ORDER BY id DESC LIMIT 1000)
    UNION ALL
    (SELECT id, slot FROM {outbox}.parked WHERE state = 'retry' ORDER BY id LIMIT 1000)
    UNION ALL
    (SELECT id, slot FROM {outbox}.parked WHERE state <> 'dead'
      ORDER BY available_at LIMIT 1000)
)
SELECT m.task, m.exchange, m.routing_key, m.declare::text AS declarations,
       count(DISTINCT m.id) AS messages
FROM sample s JOIN {outbox}.message m ON m.id = s.id AND m.slot = s.slot
WHERE m.headers::text LIKE '%%"task"%%'
GROUP BY 1, 2, 3, 4
"""
#: An inspector may read the counts, and not this.
MAY_SAMPLE: Final = "SELECT has_table_privilege(%(message)s, 'SELECT')"
ALIVE: Final = "SELECT count(*) FROM inbox.worker WHERE alive_until > now()"


#: An inspector may not ask for what is missing in this way.
MAY_JUDGE: Final = """
SELECT has_function_privilege(to_regprocedure(%(function)s), 'EXECUTE')
"""
#: Messages that workers threw away as they did not know the task: a thousand of the last day.
THROWN_AWAY: Final = """
SELECT message_id, outcome, error, worker, run, noted_at FROM inbox.receipt
WHERE outcome = 'unregistered' AND noted_at > now() - interval '1 day'
ORDER BY noted_at DESC LIMIT 1000
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Messages with one task and one way to go."""

    task: str
    exchange: str
    routing_key: str
    declarations: str
    messages: int

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues it is known to lead to."""
        return queues_of(self.exchange, self.routing_key, self.declarations)


@dataclass(frozen=True, slots=True)
class UnknownTask:
    """A task that no live worker of a queue knows, and how many of the sample wait for one."""

    task: str
    queue: str
    messages: int


@dataclass(frozen=True, slots=True)
class _Said:
    queue: str
    tasks: list[str]


def alive(inbox: Session) -> int | None:
    """How many live workers say what they know; None where that cannot be read."""
    return int(inbox.value(ALIVE)) if inbox.value(MAY_READ_WORKERS) else None


def known_by(inbox: Session) -> Known:
    """What live workers know, by queue; empty where nothing can be known."""
    if not inbox.value(MAY_READ_WORKERS):
        return NOTHING
    return {each.queue: frozenset(each.tasks) for each in inbox.fetch(_Said, LIVE)}


def read(outbox: Session, inbox: Session) -> list[UnknownTask]:
    """Those with most messages first; none where nothing can be known."""
    message = f'"{outbox.schema}".message'
    if not outbox.value(MAY_SAMPLE, message=message):
        return []
    known = known_by(inbox)
    return judge(outbox.fetch(Waiting, SAMPLE), known) if known else []


def judge(waiting: list[Waiting], known: Known) -> list[UnknownTask]:
    """What of this no live worker of its queue knows."""
    found: Counter[tuple[str, str]] = Counter()
    for each in waiting:
        if not is_known(known, each.queues, each.task):
            found[each.task, ", ".join(each.queues)] += each.messages
    return [UnknownTask(*name, count) for name, count in found.most_common(MAX_NAMED)]


def read_missing(outbox: Session, inbox: Session) -> list[UnknownTask]:
    """The same of what was sent and thrown away by a worker that did not know it, lately."""
    function = f'"{outbox.schema}".missing_among(json,json,timestamptz)'
    if not (outbox.value(MAY_JUDGE, function=function) and inbox.value(queries.MAY_READ_RECEIPTS)):
        return []
    thrown = inbox.fetch(Unfinished, THROWN_AWAY)
    if not thrown or not (known := known_by(inbox)):
        return []
    # The clocks may differ: of what was thrown away, the time does not matter.
    missing = among(outbox, thrown, Inquiry(until=outbox.value(queries.NOW)))
    return judge([*map(_as_waiting, missing)], known)


def _as_waiting(missing: Missing) -> Waiting:
    return Waiting(
        missing.task, missing.exchange, missing.routing_key, missing.declarations, messages=1
    )


def watch(settings: Settings) -> list[UnknownTask]:
    """The same, on connections of its own. Raises StoreLost or SchemaError."""
    with Session.open(settings) as outbox, inbox_of(outbox, settings) as inbox:
        return read(outbox, inbox)
