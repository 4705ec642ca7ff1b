"""Reads the replies to a batch: what is in, what never will be, and what to do about the rest.

Pure. A batch is a transaction. Either EXEC ran all its commands, and each has a reply of its own;
or nothing of it happened, and the batch can be sent again without harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hiredis import ReplyError

from outbox_relay.broker.redis import resp
from outbox_relay.broker.redis.batch import Batch, Row
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.errors import BrokerLost

#: The server cannot take writes now, and says it will be able to: no memory, no disk, too few
#: replicas, a script that runs.
PAUSE: Final = frozenset({"OOM", "MISCONF", "NOREPLICAS", "BUSY", "TRYAGAIN"})
#: This connection leads to the wrong server, or to one that does not accept us.
LOST: Final = frozenset(
    {
        "LOADING",
        "READONLY",
        "MASTERDOWN",
        "NOAUTH",
        "WRONGPASS",
        "CLUSTERDOWN",
        "MOVED",
        "ASK",
        "CROSSSLOT",
        "UNBLOCKED",
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a batch. `again` was not done, and `pause` says why it has to wait."""

    taken: list[Message] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    again: list[Message] = field(default_factory=list)
    pause: str | None = None
    lost: BrokerLost | None = None


def judge(batch: Batch, replies: Sequence[object]) -> Verdict:
    """The verdict, given the replies to MULTI, to each command as it was queued, and to EXEC."""
    outcome = replies[-1]
    if isinstance(outcome, list):
        return _executed(batch.rows, outcome[batch.overhead :])
    return _aborted(batch.rows, replies[1 + batch.overhead : -1], replies)


def _executed(rows: Sequence[Row], replies: list[object]) -> Verdict:
    if ReplyError not in map(type, replies) and not any(row.fanout for row in rows):
        return Verdict(taken=[row.message for row in rows])
    verdict = Verdict()
    for row in rows:
        own = [replies[place] for place in row.commands]
        message = row.message
        errors = [reply for reply in own if isinstance(reply, ReplyError)]
        if errors:
            verdict.refused.append(_refusal(message, errors[0]))
        elif row.fanout and message.mandatory and not any(own):
            detail = f"nobody listens to exchange {message.exchange!r}"
            verdict.refused.append(Refusal(message, Reason.UNROUTABLE, detail))
        else:
            verdict.taken.append(message)
    return verdict


def _aborted(rows: Sequence[Row], queued: Sequence[object], replies: Sequence[object]) -> Verdict:
    """Nothing happened. The commands that were not even queued say why."""
    errors = [reply for reply in replies if isinstance(reply, ReplyError)]
    for error in errors:
        # Without its MULTI it was no transaction, and may have happened after all.
        if resp.code(error) in LOST or error is replies[0]:
            return Verdict(lost=BrokerLost(str(error)))
    messages = [row.message for row in rows]
    for error in errors:
        # The text of EXEC's own error ends with the error that it found.
        if resp.code(error) in PAUSE or resp.code(str(error).rpartition(": ")[2]) in PAUSE:
            return Verdict(again=messages, pause=str(error))
    verdict = Verdict()
    for row in rows:
        wrong = [r for place in row.commands if isinstance(r := queued[place], ReplyError)]
        if wrong:
            verdict.refused.append(_refusal(row.message, wrong[0]))
        else:
            verdict.again.append(row.message)
    if not verdict.refused:
        return Verdict(lost=BrokerLost(f"the server takes no batch: {errors or replies[-1]}"))
    return verdict


def _refusal(message: Message, error: ReplyError) -> Refusal:
    reason = Reason.FORBIDDEN if resp.code(error) == "NOPERM" else Reason.REJECTED
    return Refusal(message, reason, str(error))
