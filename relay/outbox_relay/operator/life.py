"""The life of a message in the order of time: created, claimed, confirmed, received, finished.

Also what people did to it meanwhile, such as to replay it. Pure: whoever asks both databases says
by how much the inbox's clock is ahead, and everything is told by the outbox's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from outbox_relay.operator.session import Time


@dataclass(frozen=True, slots=True)
class Step:
    """What happened, and when."""

    at: Time
    what: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """The broker has confirmed it; a message that was replayed has several."""

    sent_at: Time
    claimed_at: Time | None


@dataclass(frozen=True, slots=True)
class Action:
    """What a person did to it."""

    at: Time
    who: str
    action: str
    why: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a worker has told of a message."""

    outcome: str
    error: str | None
    run: int
    worker: str | None
    received_at: Time | None
    finished_at: Time | None
    noted_at: Time


@dataclass(frozen=True, slots=True)
class Told:
    """What the inbox knows of a message id; its clock is so much ahead of the outbox'."""

    receipt: Receipt | None = None
    processed_at: Time | None = None
    ahead: timedelta = timedelta(0)


#: What a person's action did, in the words of a life.
DONE = {
    "retry": "retried",
    "discard": "discarded",
    "cancel": "cancelled",
    "replay": "replayed",
    "reschedule": "rescheduled",
}


def in_outbox(
    created_at: Time, due_at: Time | None, confirms: Sequence[Confirm], actions: Sequence[Action]
) -> list[Step]:
    """What the outbox has to tell."""
    steps = [Step(created_at, "created")]
    if due_at is not None and due_at != created_at:
        steps.append(Step(due_at, "due"))
    for number, confirm in enumerate(confirms):
        again = "" if number == 0 else " again"
        if confirm.claimed_at is not None:
            steps.append(Step(confirm.claimed_at, f"claimed{again}"))
        steps.append(Step(confirm.sent_at, f"confirmed{again}"))
    for each in actions:
        why = f": {each.why}" if each.why else ""
        steps.append(Step(each.at, f"{DONE.get(each.action, each.action)} by {each.who}{why}"))
    return steps


def at_worker(told: Told, run: int) -> list[Step]:
    """What the inbox has to tell of this run of the task, by the clock of the outbox."""
    steps: list[Step] = []
    receipt = told.receipt
    if told.processed_at is not None:
        steps.append(Step(told.processed_at, "its effects began, and are committed"))
    if receipt is not None and receipt.run == run:
        by = f" by {receipt.worker}" if receipt.worker else ""
        if receipt.received_at is not None:
            steps.append(Step(receipt.received_at, f"received{by}"))
        why = f" ({receipt.error})" if receipt.error else ""
        if receipt.finished_at is not None:
            steps.append(Step(receipt.finished_at, f"finished: {receipt.outcome}{why}"))
        else:
            steps.append(Step(receipt.noted_at, f"{receipt.outcome}{by}"))
    return [replace(step, at=_set_back(step.at, told.ahead)) for step in steps]


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Earliest first; of what happened at one moment, as it is given."""
    return sorted(steps, key=lambda step: _comparable(step.at))


def _set_back(at: Time, ahead: timedelta) -> Time:
    return at - ahead if isinstance(at, datetime) else at


def _comparable(at: Time) -> datetime:
    """Postgres has times that Python has not: they are before or after all others."""
    if isinstance(at, datetime):
        return at
    return (datetime.min if at.startswith("-") else datetime.max).replace(tzinfo=UTC)
