"""What the relay decides. Pure: no I/O, no clock; told what happened, it says what to do.

It guarantees that a message becomes sent only after a confirm of its own; that an outage costs no
message an attempt; that a poison suspect is published in quarantine; and that every message
claimed is settled, parked or given back.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from outbox_relay.core.backoff import retry_delay
from outbox_relay.core.claim import Fetched, Reply, Turn
from outbox_relay.core.cursor import Cursor
from outbox_relay.core.lanes import Lanes
from outbox_relay.core.message import Held, Message, Parking, Reason, Refusal
from outbox_relay.core.policy import Policy
from outbox_relay.core.size import too_large
from outbox_relay.core.suspects import Suspects
from outbox_relay.settings import Settings

#: Refusals that are not the message's fault: they wait for another try, and cost no attempt.
FREE: Final = frozenset({Reason.NACKED, Reason.FORBIDDEN, Reason.SUSPECTED, Reason.UNDECLARED})
#: Refusals that no further attempt could change.
FINAL: Final = frozenset({Reason.INVALID, Reason.EXPIRED, Reason.DENIED, Reason.TOO_LARGE})
#: Refusals after which a poison suspect still is one.
STILL_SUSPECT: Final = (FREE - {Reason.NACKED}) | {Reason.REJECTED}
#: The size of the bodies in flight, in bytes, at which claiming pauses.
MAX_IN_FLIGHT_BYTES: Final = 64 << 20
#: How many times within a lease claims are renewed, those of the newest interval excepted.
RENEWALS_PER_LEASE: Final = 3


@dataclass(frozen=True, slots=True)
class Sorted:
    """What was fetched, by what is to be done with it."""

    publish: list[Message]  # now
    refused: list[Refusal]  # without being published
    later: list[Held]  # to be given back: their bodies had no room


class Core:
    """The relay's memory of what it holds, and the rules it follows."""

    def __init__(self, settings: Settings, first_claim_id: int) -> None:
        self._settings = settings
        self._cursor = Cursor()
        self._lanes = Lanes()
        self._policy = Policy(settings.allow_content_types, settings.allow_exchanges)
        self._claim_id = first_claim_id
        self._limit = settings.batch_size
        self._held: dict[int, Held] = {}
        self._done: list[Message] = []
        self._suspects = Suspects()
        self._renewed = 0.0
        self._renewable = first_claim_id  # older claims were already held at the last renewal

    @property
    def holding(self) -> int:
        """Messages claimed and not yet confirmed or refused."""
        return len(self._held)

    @property
    def next_claim_id(self) -> int:
        """The number of the next claim; no claim before had it."""
        return self._claim_id

    @property
    def at_rest(self) -> bool:
        """Whether nothing is claimed, and nothing confirmed is still to be settled."""
        return not self._held and not self._done

    def turn(self, now: float, *, claiming: bool, blocked: bool, in_flight_bytes: int) -> Turn:
        """What the next transaction should do."""
        # Suspects wait elsewhere: they must not take the room of other messages.
        room = self._settings.window - (len(self._held) - len(self._suspects))
        if not claiming or blocked or in_flight_bytes > MAX_IN_FLIGHT_BYTES:
            room = 0
        limit = max(0, min(self._limit, room))
        # Small claims from a nearly full window cost as much as large ones: wait for half a batch.
        if self._held and limit < min(self._limit, self._settings.window) // 2:
            limit = 0
        lanes = self._lanes.next_claim(now, limit, settling=bool(self._done)) if limit else None
        if lanes:
            limit -= lanes.limit
        floor = self._cursor.floor(now) if limit else 0
        return Turn(self._done, floor, limit, self._claim_id, self._settings.lease, lanes)

    def nothing_to_claim(self, turn: Turn) -> None:
        """The turn was skipped, because there was nothing to claim."""
        if turn.lanes:
            self._lanes.claimed(turn.lanes, [])

    def turned(self, turn: Turn, reply: Reply) -> None:
        """The turn was committed: its confirms are settled, its rows are ours."""
        self._done = []
        self._claim_id += 1
        if turn.lanes:
            self._lanes.claimed(turn.lanes, reply.news)
        if turn.limit:
            self._cursor.claimed([row.id for row in reply.rows], turn.limit)
        for row in (*reply.heads, *reply.rows):
            self._held[row.id] = Held(row.id, row.slot, turn.claim_id)

    def fetched(self, fetched: Fetched) -> Sorted:
        """Sort what was fetched by what is to be done with it."""
        allowed, refused = self._policy.sort(fetched.messages)
        publish = [m for m in allowed if not (m.expired or m.suspicion)]
        for message in allowed if len(publish) < len(allowed) else ():
            if message.expired:
                detail = "it expired before it could be published"
                refused.append(Refusal(message, Reason.EXPIRED, detail))
            elif message.suspect and not self._suspects.full:
                self._suspects.add(message)
            elif message.suspect:
                detail = "a channel died with it in flight: it waits for room in quarantine"
                refused.append(Refusal(message, Reason.SUSPECTED, detail))
        refused += [too_large(*oversized) for oversized in fetched.oversized]
        self._adapt(fetched)
        return Sorted(publish, refused, fetched.too_large)

    def _adapt(self, fetched: Fetched) -> None:
        """Claim only as many rows as can be fetched at once while bodies are large."""
        if fetched.too_large:
            self._limit = max(1, len(fetched.messages))
            self._cursor.rewind()
        else:
            self._limit = min(self._settings.batch_size, self._limit * 2)

    @property
    def has_suspects(self) -> bool:
        """Whether poison suspects wait to be published."""
        return len(self._suspects) > 0

    def next_suspects(self, count: int) -> list[Message]:
        """Up to so many poison suspects to publish in quarantine."""
        return self._suspects.take(count)

    def suspect_again(self, messages: Iterable[Message]) -> None:
        """Publish these in quarantine once more, unless their claim has ended meanwhile."""
        for message in messages:
            if self._held.get(message.id) == message.held:
                self._suspects.add(message)

    def confirmed(self, messages: Collection[Message]) -> None:
        """The broker has them: they wait to be settled."""
        for message in messages:
            self._held.pop(message.id, None)
        self._done += messages

    def still_held(self, refusals: Iterable[Refusal]) -> list[Refusal]:
        """The refusals of messages still held under the claim they were published under."""
        return [r for r in refusals if self._held.get(r.message.id) == r.message.held]

    def parkings(self, refusals: Iterable[Refusal]) -> list[Parking]:
        """Where each refused message goes."""
        return [self._parking(refusal) for refusal in refusals]

    def parked(self, parkings: Iterable[Parking]) -> None:
        """The parking was committed."""
        for parking in parkings:
            self._held.pop(parking.message.id, None)

    def _parking(self, refusal: Refusal) -> Parking:
        message, settings = refusal.message, self._settings
        free = refusal.reason in FREE
        attempts = message.attempts if free else message.attempts + 1
        dead = refusal.reason in FINAL or attempts >= settings.max_attempts
        return Parking(
            message,
            state="dead" if dead and not free else "retry",
            attempts=attempts,
            suspicion=message.suspicion if refusal.reason in STILL_SUSPECT else 0,
            delay=retry_delay(settings.retry_delay, max(1, attempts)),
            error=f"{refusal.reason}: {refusal.detail}",
        )

    def held(self, suspects: Collection[int] = ()) -> tuple[list[Held], list[Held]]:
        """All that is held, in two lists: what is not among the `suspects`, and what is."""
        cleared = [held for held in self._held.values() if held.id not in suspects]
        suspected = [held for held in self._held.values() if held.id in suspects]
        return cleared, suspected

    def given_back(self, ids: Iterable[int]) -> None:
        """The release was committed, or is left to the end of the lease."""
        if not (gone := set(ids)):
            return
        for id_ in gone:
            self._held.pop(id_, None)
        self._suspects.forget(gone)
        self._cursor.rewind()

    def renewal(self, now: float) -> list[Held]:
        """What is to be renewed now: mostly nothing, as most messages are confirmed long before.

        After a pause of this process, all that is held: what no other relay has claimed meanwhile
        is ours again.
        """
        interval = self._settings.lease / RENEWALS_PER_LEASE
        if (since := now - self._renewed) < interval:
            return []
        self._renewed = now
        before, self._renewable = self._renewable, self._claim_id
        if since >= 2 * interval:
            before = self._claim_id
        return [held for held in self._held.values() if held.claim_id < before]

    def still_ours(self, claimed_at: float, now: float) -> bool:
        """Whether a claim made then is surely ours now, and not another relay's."""
        return now - claimed_at < self._settings.lease / 2
