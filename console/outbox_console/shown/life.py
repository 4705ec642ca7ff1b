"""The life of a message as steps on a time line, from what is known of it. Pure."""

from dataclasses import dataclass
from datetime import datetime

from outbox_console.outbox.message import Message
from outbox_console.outbox.receipts import Receipt
from outbox_console.shown.words import amount


@dataclass(frozen=True, slots=True)
class Step:
    """What happened, or is to happen, and when that is known. `level`: done, now, bad or later."""

    title: str
    at: datetime | None
    note: str
    level: str


#: How the work ended, in the words of this page; what is not here ended badly.
_ENDS = {
    "succeeded": ("Done", "done"),
    "ignored": ("Ended without a result", "done"),
    "retried": ("Tried again by the task itself", "now"),
    "revoked": ("Revoked, or expired on its way", "now"),
    "held": ("A worker has it", "now"),
}
_BAD_ENDS = {
    "failed": "The task has failed",
    "rejected": "Rejected by the task",
    "lost": "Lost: the worker's process died",
    "unregistered": "No worker knew this task",
    "undecodable": "A worker could not decode it",
}


def steps(
    message: Message, receipt: Receipt | None = None, *, receipts_known: bool = False
) -> list[Step]:
    """Oldest first; the last is where it stands."""
    life = [Step("Committed", message.created_at, "a row in the transaction that sent it", "done")]
    if message.eta and message.eta > message.created_at and message.state != "scheduled":
        life.append(Step("Due", message.eta, "its eta", "done"))
    if message.attempts and message.state != "dead":
        # What is held back has its reason from whoever holds it, and no longer the broker's.
        reason = "" if message.held_back else f": {message.last_error or 'no reason given'}"
        life.append(Step("Refused", None, amount(message.attempts, "time") + reason, "bad"))
    life.append(_standing(message))
    if receipt is not None:
        life += _work(receipt)
    elif receipts_known and message.state == "sent":
        life.append(Step("No worker has told of it", None, "there is no receipt", "now"))
    return life


def _work(receipt: Receipt) -> list[Step]:
    where = f"by {receipt.worker}" if receipt.worker else ""
    steps = [Step("Received", receipt.received_at, where, "done")] if receipt.received_at else []
    if receipt.outcome in _ENDS:
        title, level = _ENDS[receipt.outcome]
    else:
        title, level = _BAD_ENDS.get(receipt.outcome, receipt.outcome), "bad"
    notes = [receipt.error or "", f"retries: {receipt.retries}" if receipt.retries else ""]
    return [*steps, Step(title, receipt.finished_at, ", ".join(filter(None, notes)), level)]


def _standing(message: Message) -> Step:
    if message.state == "sent":
        return Step("Sent", message.sent_at, "confirmed by the broker", "done")
    if message.state == "expired":
        return Step("Expired", message.expired_at, message.last_error or "", "now")
    if message.state == "dead":
        note = f"after {amount(message.attempts, 'attempt')}" if message.attempts else ""
        return Step("Given up", message.parked_until, note, "bad")
    if message.state == "scheduled":
        return Step("Due", message.parked_until, "held until then", "later")
    if message.claimed_until:
        return Step("Held by a relay", None, "being published at this moment", "now")
    if message.in_lane:
        note = f"behind others with the ordering key {message.ordering_key}"
        return Step("In its lane", None, note, "now")
    if message.held_back:
        return Step("Held back", None, message.last_error or "", "later")
    if message.parked_until:
        return Step("Next attempt", message.parked_until, message.last_error or "", "later")
    return Step("To be published", None, "waits for a relay", "now")
