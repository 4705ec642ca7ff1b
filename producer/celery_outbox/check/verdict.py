"""What will become of a send: one table, from what it is and what stands around it."""

from dataclasses import dataclass

from celery_outbox.check.finding import Certainty, Outcome
from celery_outbox.check.index import Index
from celery_outbox.check.recognise import Sent
from celery_outbox.check.surroundings import Kind, Opening


@dataclass(frozen=True)
class Around:
    """What stands around a place."""

    openings: tuple[Opening, ...] = ()
    #: Whether it runs after the commit.
    on_commit: bool = False
    #: Whether that `on_commit` is certainly Django's.
    sure: bool = True
    #: What it is in that is called at a time that cannot be told.
    later: str | None = None
    #: Line and name of the locks that the function takes.
    locks: tuple[tuple[int, str], ...] = ()
    in_task: bool = False
    #: Where a callback of `on_commit` calls the function.
    called_at: str | None = None


def judge(sent: Sent, around: Around, index: Index) -> tuple[Outcome, Certainty, str]:
    """Return what will become of a send, how sure that is, and why."""
    if sent.doubt:
        return Outcome.UNKNOWN, Certainty.UNKNOWN, sent.doubt
    sure = sent.thing.certain
    if sent.call == "signature()":
        reason = "a signature that is called runs its task here and sends nothing"
        return Outcome.RUNS_HERE, _certainty(sure), reason
    if sent.own:
        reason = "a row of its own, which a rollback of the task's transaction leaves alone"
        return Outcome.STORED_APART, _certainty(sure), reason
    if around.on_commit:
        reason = "in a callback of on_commit: a crash between the commit and it loses the task"
        return Outcome.ON_COMMIT, _certainty(sure and around.sure), reason
    if around.openings and (decided := _in_block(around.openings, sure)):
        return decided
    if around.later:
        return Outcome.UNKNOWN, Certainty.UNKNOWN, f"in {around.later}: when it runs cannot be told"
    if around.called_at:
        reason = (
            f"on_commit at {around.called_at} calls this function after the commit: a crash"
            " between the two loses the task"
        )
        return Outcome.ON_COMMIT, Certainty.LIKELY, reason
    return Outcome.NONE_IN_SIGHT, _certainty(sure), _alone(around, index)


def _in_block(openings: tuple[Opening, ...], sure: bool) -> tuple[Outcome, Certainty, str] | None:
    """Return what the blocks around a send make of it, if they are transactions."""
    joined = [opening for opening in openings if opening.kind is Kind.JOINED]
    if joined:
        inner = max(joined, key=lambda opening: (opening.certain, opening.line))
        reason = f"in the transaction of `{inner.shown}` (line {inner.line})"
        return Outcome.JOINS, _certainty(sure and inner.certain), reason
    named = [opening for opening in openings if opening.kind is Kind.NAMED]
    if named:
        inner = named[-1]
        reason = (
            f"`{inner.shown}` (line {inner.line}) names a database: the send joins if that is the"
            " outbox's, and is refused otherwise"
        )
        return Outcome.UNKNOWN, Certainty.UNKNOWN, reason
    begun = [opening for opening in openings if opening.kind is Kind.BEGUN]
    if begun:
        inner = begun[-1]
        reason = (
            f"`{inner.shown}` (line {inner.line}) begins a transaction; the send joins it in "
            f"`with app.outbox.using({inner.target})`"
        )
        return Outcome.NEEDS_USING, Certainty.LIKELY, reason
    return None


def _certainty(sure: bool) -> Certainty:
    return Certainty.CERTAIN if sure else Certainty.LIKELY


def _alone(around: Around, index: Index) -> str:
    """Say what a send does that has no transaction in its function."""
    if index.django:
        return "no transaction in sight: it joins its caller's, or is a row of its own"
    if around.in_task:
        return "no transaction in sight: a row of its own, with OUTBOX_DATABASE_URL"
    return "no transaction in sight: it needs a caller's `using`, or OUTBOX_DATABASE_URL"
