"""What was confirmed and has no receipt, and where each such message most likely is.

The receipts may be in another database. Ids of what was confirmed are read here a portion at a
time, and asked for there while the next are read: each side uses its own clock, and the difference
is measured.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from outbox_relay.broker.registry import broker_of
from outbox_relay.core.dead_letter import DEAD
from outbox_relay.core.place import Broker, Ready, Told, Whereabouts, judge
from outbox_relay.core.route import queues_of
from outbox_relay.errors import BrokerLost, SchemaError
from outbox_relay.operator import queries
from outbox_relay.operator.session import Session, Time
from outbox_relay.postgres.database import connect
from outbox_relay.settings import Settings

#: How many messages are sent again in one transaction.
PORTION = 1000
NO_INBOX = (
    "the inbox's database has no receipts: name the database that has them with --inbox-url "
    "(OUTBOX_INBOX_URL), or run `outbox-migrate up` on this one"
)
NOT_WATCHED = (
    "no worker leaves receipts yet, so nothing can be missed: call "
    "celery_inbox.receipts(app, connect) in the workers' app"
)


@dataclass(frozen=True, slots=True)
class Portion:
    """Messages that were confirmed one after another; their ids are an array literal."""

    last: datetime | None
    message_ids: str | None
    messages: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What the inbox knows of a message that no run has finished."""

    message_id: str
    outcome: str | None
    error: str | None
    worker: str | None
    run: int | None
    noted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Missing:
    """A message that was confirmed and is not finished."""

    id: int
    message_id: str
    task: str
    exchange: str
    routing_key: str
    declarations: str
    created_at: Time
    sent_at: datetime
    outcome: str | None
    error: str | None
    worker: str | None
    noted_at: datetime | None

    @property
    def queues(self) -> list[str]:
        """The queues it is known to have gone to."""
        return queues_of(self.exchange, self.routing_key, self.declarations)


@dataclass(frozen=True, slots=True)
class Found:
    """What is missing, of how many messages that were looked at."""

    checked: int
    missing: list[Missing]
    now: datetime  # by the clock of the inbox


def find(settings: Settings, older_than: float, since: datetime | None, task: str | None) -> Found:
    """What was confirmed in time and has no receipt. Raises StoreLost or SchemaError."""
    with (
        Session.open(settings) as outbox,
        Session.open(settings) as reading,
        open_inbox(settings) as inbox,
    ):
        until = outbox.value(queries.NOW) - timedelta(seconds=older_than)
        ahead = inbox.value(queries.NOW) - outbox.value(queries.NOW)
        watched = _watched(inbox, ahead)
        begin = min(datetime.fromisoformat(each["since"]) for each in watched)
        checked, missing = 0, []
        for portion in _ahead(_portions(reading, max(begin, since or begin), until, task)):
            checked += portion.messages
            rows = inbox.fetch(Unfinished, queries.UNFINISHED, message_ids=portion.message_ids)
            if rows:
                missing += outbox.fetch(
                    Missing,
                    queries.MISSING,
                    found=_json([asdict(row) for row in rows]),
                    watched=_json(watched),
                    until=until,
                )
        return Found(checked, _once(missing), inbox.value(queries.NOW))


def locate(settings: Settings, found: Found) -> list[tuple[Missing, Whereabouts]]:
    """Each with its place; where the broker cannot be asked, that is said."""
    queues = {queue for each in found.missing for queue in each.queues}
    broker = _ask(settings, sorted(queues)) if queues else Broker({})
    several = Counter(tuple(each.queues) for each in found.missing)
    return [
        (
            each,
            judge(each.queues, _told(each, found.now), broker, several[tuple(each.queues)], DEAD),
        )
        for each in found.missing
    ]


def send_again(settings: Settings, missing: Sequence[Missing]) -> int:
    """Have exactly these published again; how many are pending now."""
    with Session.open(settings) as session:
        return sum(
            session.value(queries.SEND_AGAIN, ids=[each.id for each in missing[n : n + PORTION]])
            for n in range(0, len(missing), PORTION)
        )


def open_inbox(settings: Settings) -> Session:
    """The database that has the receipts."""
    url = settings.inbox_url.read() or settings.database_url.read()
    role = "inbox_worker" if settings.inbox_url.read() else "outbox_relay"
    connection = connect(url, "outbox-relay audit", settings.statement_timeout)
    session = Session(connection, settings.schema, role)
    if not session.value(queries.HAS_RECEIPTS):
        session.__exit__()
        raise SchemaError(NO_INBOX)
    return session


def _watched(inbox: Session, ahead: timedelta) -> list[dict[str, str]]:
    """The tasks whose workers leave receipts, and since when, by the outbox' clock."""
    rows = inbox.fetch(_Watched, queries.WATCHED)
    if not rows:
        raise SchemaError(NOT_WATCHED)
    return [{"task": row.task, "since": (row.since - ahead).isoformat()} for row in rows]


@dataclass(frozen=True, slots=True)
class _Watched:
    task: str
    since: datetime


def _portions(
    outbox: Session, after: datetime, until: datetime, task: str | None
) -> Iterator[Portion]:
    last: datetime | None = after - timedelta(microseconds=1)
    while last is not None:
        [portion] = outbox.fetch(
            Portion, queries.CONFIRMED_PORTION, after=last, until=until, task=task
        )
        if portion.messages:
            yield portion
        last = portion.last


def _ahead(portions: Iterator[Portion]) -> Iterator[Portion]:
    """The same, each being read while the one before is looked at."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, portions, None)
        while (portion := following.result()) is not None:
            following = thread.submit(next, portions, None)
            yield portion


def _once(missing: list[Missing]) -> list[Missing]:
    """A message that was sent twice is in two portions."""
    return list({each.id: each for each in missing}.values())


def _told(missing: Missing, now: datetime) -> Told | None:
    if missing.outcome is None or missing.noted_at is None:
        return None
    ago = (now - missing.noted_at).total_seconds()
    return Told(missing.outcome, missing.worker or "", missing.error, ago)


def _ask(settings: Settings, queues: Sequence[str]) -> Broker:
    """How deep these queues and their dead letters are, of the first broker that answers."""
    if not settings.broker_url.read():
        return Broker({}, "the broker was not asked: OUTBOX_BROKER_URL is not set")
    names = [*queues, *(queue + DEAD for queue in queues)]
    failure = ""
    for url in map(str.strip, settings.broker_url.read().split(";")):
        try:
            depths = broker_of(url).depths(url, settings, names)
        except BrokerLost as error:
            failure = f"the broker was not asked: {error}"
        else:
            return Broker({d.queue: Ready(d.messages, d.consumers) for d in depths})
    return Broker({}, failure)


def _json(value: Any) -> str:
    return json.dumps(value, default=str)
