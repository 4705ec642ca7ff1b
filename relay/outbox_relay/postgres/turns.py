"""A turn as the database is asked it: one transaction that settles, and then claims.

What is settled comes first, so that a claim takes what was just let go of; the replies come in the
order of the queries.
"""

from collections.abc import Sequence
from typing import Any, Final

from outbox_relay.core.claim import ClaimedRow, Turn
from outbox_relay.core.message import Message
from outbox_relay.postgres import statements, waiting
from outbox_relay.postgres.literals import bigints
from outbox_relay.postgres.pipeline import Query

#: No id is higher.
NOTHING_ABOVE: Final = (1 << 63) - 1
#: What was done about a message that expired.
TOLD: Final = "published without its time limit, so that a worker ends it as revoked"
UNPUBLISHED: Final = "not published: nobody waits for its end"


def above(turn: Turn) -> dict[str, int]:
    """Where a look for what the turn could claim begins."""
    return {"floor": turn.floor, "above": turn.lanes.above if turn.lanes else NOTHING_ABOVE}


def queries(turn: Turn) -> list[Query]:
    """Everything that the turn asks, in one transaction."""
    asked = settlements(turn.done, turn.lease_seconds)
    lease = {"claim_id": turn.claim_id, "lease_seconds": turn.lease_seconds}
    if turn.lanes:
        lanes = {"above": turn.lanes.above, "news": turn.lanes.limit}
        asked.append(Query(statements.CLAIM_LANES, {**lanes, **lease}))
    if turn.routes:
        asked.append(waiting.query(turn.routes, lease))
    if turn.limit:
        claim = {"floor": turn.floor, "limit": turn.limit}
        asked.append(Query(statements.CLAIM, {**claim, **lease}, ClaimedRow._make))
    return asked


def settlements(done: Sequence[Message], lease_seconds: float) -> list[Query]:
    """One for each claim that messages were published under, mostly one or two; and the expired."""
    claims: dict[int, list[int]] = {}
    expired = []
    for message in done:
        if message.expired:
            expired.append(message)
        else:
            claims.setdefault(message.claim_id, []).append(message.id)
    queries = [
        Query(
            statements.SETTLE,
            {"ids": bigints(ids), "claim_id": claim_id, "lease_seconds": lease_seconds},
        )
        for claim_id, ids in claims.items()
    ]
    if expired:
        queries.append(Query(statements.EXPIRE, ended(expired, TOLD)))
    return queries


def ended(messages: Sequence[Message], error: str) -> dict[str, str]:
    """What EXPIRE is told of messages that have expired."""
    return {
        "ids": bigints(message.id for message in messages),
        "claim_ids": bigints(message.claim_id for message in messages),
        "attempts": bigints(message.attempts for message in messages),
        "error": error,
    }


def from_lanes(rows: list[Any]) -> tuple[list[ClaimedRow], list[int]]:
    """The rows that were next in their lanes, and the news by which they were found."""
    ((news, ids, slots),) = rows
    heads = zip(ids or (), slots or (), strict=True)
    return [ClaimedRow(id_, slot, attempts=0, suspicion=0) for id_, slot in heads], news or []
