"""What was confirmed and has no receipt, and where each such message most likely is.

The receipts may be in another database. Ids of what was confirmed are read here a portion at a
time, and asked for there while the next are read: each side uses its own clock, and the difference
is measured.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from time import monotonic

from outbox_relay.broker.registry import broker_of
from outbox_relay.core.dead_letter import DEAD
from outbox_relay.core.place import Bounds, Broker, Ready, Told, Whereabouts, is_held, judge
from outbox_relay.errors import BrokerLost, SchemaError
from outbox_relay.operator import queries
from outbox_relay.operator.inbox import open_inbox
from outbox_relay.operator.manage import Order, Row, act
from outbox_relay.operator.missing import Inquiry, Missing, Portion, missing_of, portions
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings

#: A worker's word may be written down before the confirm of what it is about, so much at most; what
#: is older is about what was sent before.
NOTED_AFTER = timedelta(seconds=10)
#: How many messages are sent again in one transaction.
PORTION = 1000
EVERYTHING = Bounds()
NO_INBOX = (
    "the inbox's database has no receipts: name the database that has them with --inbox-url "
    "(OUTBOX_INBOX_URL), or run `outbox-migrate up` on this one"
)
NOT_WATCHED = (
    "no worker leaves receipts yet, so nothing can be missed: call "
    "celery_inbox.receipts(app, connect) in the workers' app"
)


@dataclass(frozen=True, slots=True)
class Found:
    """What is missing, of how many messages that were looked at."""

    checked: int
    missing: list[Missing]
    now: datetime  # by the clock of the inbox
    inquiry: Inquiry
    complete: bool = True


def find(settings: Settings, inquiry: Inquiry, *, within: float = inf, most: float = inf) -> Found:
    """What was confirmed in time and has no receipt. Raises StoreLost or SchemaError.

    Of much, as far as it comes `within` so many seconds, or with at `most` so many and those of a
    portion, from the oldest on.
    """
    give_up = monotonic() + within
    with (
        Session.open(settings) as outbox,
        Session.open(settings) as reading,
        _open_inbox(settings) as inbox,
    ):
        inquiry = inquiry.of(outbox, inbox)
        if not inquiry.watched:
            raise SchemaError(NOT_WATCHED)
        checked, complete = 0, True
        missing: list[Missing] = []
        for portion in _ahead(portions(reading, inquiry)):
            checked += portion.messages
            missing += missing_of(outbox, inbox, inquiry, portion.message_ids)
            if not (complete := monotonic() < give_up and len(missing) < most):
                break
        return Found(checked, _once(missing), inbox.value(queries.NOW), inquiry, complete)


def locate(
    settings: Settings, found: Found, *, most: float = inf
) -> list[tuple[Missing, Whereabouts]]:
    """Each with its place; where the broker cannot be asked, that is said.

    Queues with more messages than `most` are not searched for ids.
    """
    return placed(found, ask(settings, found, most=most)) if found.missing else []


def placed(found: Found, broker: Broker) -> list[tuple[Missing, Whereabouts]]:
    """Each with its place, by what the broker said."""
    told = [_told(each, found.now, found.inquiry.ahead) for each in found.missing]
    unseen = Counter(
        tuple(each.queues) for each, word in zip(found.missing, told, strict=True) if word is None
    )
    return [
        (
            each,
            judge(
                each.message_id,
                each.queues,
                word,
                broker,
                max(1, unseen[tuple(each.queues)]),
                DEAD,
            ),
        )
        for each, word in zip(found.missing, told, strict=True)
    ]


def send_again(
    settings: Settings, found: Found, wanted: Sequence[Missing], why: str = "", *, held: bool
) -> int:
    """Have these published again, if they are missing still, and record it; how many are pending.

    A person may have thought it over for long: what has ended since then is left alone, and so is
    what somebody else has sent again; what a worker holds by now goes only if `held`. One at a time
    does so, or two who ask at one moment would both send.
    """
    pending = 0
    with Session.open(settings) as outbox, _open_inbox(settings) as inbox:
        for n in range(0, len(wanted), PORTION):
            with outbox.transaction():
                outbox.value(queries.REPLAYS_ALONE)
                still = _still(outbox, inbox, found.inquiry, wanted[n : n + PORTION])
                now = inbox.value(queries.NOW)
                ahead = found.inquiry.ahead
                going = [e for e in still if held or not is_held(_told(e, now, ahead))]
                rows = [Row(each.id, each.slot, each.message_id) for each in going]
                pending += len(act(outbox, Order("replay", why), rows))
    return pending


def _still(
    outbox: Session, inbox: Session, inquiry: Inquiry, missing: Sequence[Missing]
) -> list[Missing]:
    """Those that are missing still, and were not confirmed again since then."""
    asked = [each.message_id for each in missing]
    known = {(each.id, each.slot) for each in missing}
    found = missing_of(outbox, inbox, inquiry.of(outbox, inbox), asked)
    return [each for each in found if (each.id, each.slot) in known]


def _open_inbox(settings: Settings) -> Session:
    """The database that has the receipts."""
    session = open_inbox(settings, "outbox-relay audit")
    if not session.value(queries.HAS_RECEIPTS):
        session.__exit__()
        raise SchemaError(NO_INBOX)
    return session


def _ahead(all_of: Iterator[Portion]) -> Iterator[Portion]:
    """The same, each being read while the one before is looked at."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, all_of, None)
        while (portion := following.result()) is not None:
            following = thread.submit(next, all_of, None)
            yield portion


def _once(missing: list[Missing]) -> list[Missing]:
    """A message that was sent twice is in two portions."""
    return list({(each.id, each.slot): each for each in missing}.values())


def _told(missing: Missing, now: datetime, ahead: timedelta) -> Told | None:
    """A worker's word on it, if that is about what was sent last."""
    if missing.outcome is None or missing.noted_at is None:
        return None
    if missing.noted_at - ahead + NOTED_AFTER < missing.sent_at:
        return None
    ago = (now - missing.noted_at).total_seconds()
    return Told(missing.outcome, missing.worker or "", missing.error, ago)


def ask(
    settings: Settings, found: Found, *, most: float = inf, bounds: Bounds = EVERYTHING
) -> Broker:
    """How deep their queues and the dead letters of these are, of the first broker that answers.

    And which of the messages it has, where it can be searched and has no more than `most`.
    """
    if not settings.broker_url.read():
        return Broker({}, "the broker was not asked: OUTBOX_BROKER_URL is not set")
    queues = sorted({queue for each in found.missing for queue in each.queues})
    message_ids = {each.message_id for each in found.missing}
    names = [*queues, *(queue + DEAD for queue in queues)]
    failure = ""
    for url in map(str.strip, settings.broker_url.read().split(";")):
        try:
            kind = broker_of(url)
            depths = kind.depths(url, settings, names)
            searched = None
            if sum(depth.messages for depth in depths) <= most:
                searched = kind.search(url, settings, queues, message_ids, bounds)
        except BrokerLost as error:
            failure = f"the broker was not asked: {error}"
        else:
            ready = {d.queue: Ready(d.messages, d.consumers) for d in depths if not d.silent}
            silent = frozenset(depth.queue for depth in depths if depth.silent)
            return Broker(ready, search=searched, silent=silent)
    return Broker({}, failure)
