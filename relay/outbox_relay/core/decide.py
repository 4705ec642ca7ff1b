"""What the relay decides. Pure: no I/O, no clock; told what happened, it says what to do.

It guarantees that a message becomes sent only after a confirm of its own; that an outage costs no
message an attempt; that a poison suspect is published in quarantine; that a route that refuses is
left alone but for probes; and that every message claimed is settled, parked or given back.
"""

from collections.abc import Collection, Iterable
from typing import Final

from outbox_relay.core.backoff import held_delay, retry_delay, turn_delay, unknown_delay
from outbox_relay.core.claim import Fetched, Reply, Sorted, Turn
from outbox_relay.core.claim_ids import following, is_before
from outbox_relay.core.cursor import Cursor
from outbox_relay.core.depths import Depths
from outbox_relay.core.expiry import to_be_told
from outbox_relay.core.guard import Guard
from outbox_relay.core.lanes import Lanes
from outbox_relay.core.message import Held, Message, Parking, Reason, Refusal
from outbox_relay.core.pauses import PAUSING, Pauses, route_of, written
from outbox_relay.core.policy import Policy
from outbox_relay.core.rank import rank_of
from outbox_relay.core.renewal import Renewal
from outbox_relay.core.size import too_large
from outbox_relay.core.suspects import Suspects
from outbox_relay.core.waiting import Waiting
from outbox_relay.settings import Settings

#: Refusals that are undone when the route of the message takes others again.
WAITING: Final = PAUSING | {Reason.HELD}
#: Not refused at all: held on purpose.
HELD_BACK: Final = frozenset({Reason.PAUSED, Reason.DEEP, Reason.RATED})
#: Refusals that are not the message's fault: they wait for another try, and cost no attempt.
FREE: Final = WAITING | HELD_BACK | {Reason.SUSPECTED, Reason.UNDECLARED, Reason.UNKNOWN_TASK}
#: Refusals that no further attempt could change.
FINAL: Final = frozenset({Reason.INVALID, Reason.EXPIRED, Reason.DENIED, Reason.TOO_LARGE})
#: Refusals after which a poison suspect still is one.
STILL_SUSPECT: Final = (FREE - {Reason.NACKED, Reason.UNANSWERED}) | {Reason.REJECTED}
#: Bodies in flight, in bytes, at which claiming pauses.
MAX_IN_FLIGHT_BYTES: Final = 64 << 20


class Core:
    """The relay's memory of what it holds, and the rules it follows."""

    def __init__(
        self,
        settings: Settings,
        first_claim_id: int,
        guard: Guard | None = None,
        depths: Depths | None = None,
        *,
        lowest: bool = False,
    ) -> None:
        self._settings, self._lowest_first = settings, lowest
        self._cursor = Cursor()
        self._lanes = Lanes()
        self._policy = Policy(settings.allow_content_types, settings.allow_exchanges)
        self._claim_id = first_claim_id
        self._limit = settings.batch_size
        self._held: dict[int, Held] = {}
        self._done: list[Message] = []
        self._suspects = Suspects()
        self._pauses = Pauses(settings.retry_delay)
        self.waiting = Waiting(self._pauses, guard, depths)
        self._renewal = Renewal(settings.lease, first_claim_id)

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

    def may_sleep(self, now: float, hanging: int = 0) -> bool:
        """Whether there is nothing to do but to wait: for new work, a token, a route, or room.

        So many messages in flight hang, and need not be waited for closely.
        """
        return len(self._held) <= hanging and not (self._done or self.waiting.ready(now))

    def look_in_lanes(self) -> None:
        """The next turn claims from lanes as well, if only to find nothing."""
        self._lanes.look_now()

    def look_everywhere(self) -> None:
        """The next turn reads from the head: what called for it was not found above."""
        self._cursor.rewind()

    def turn(
        self, now: float, *, claiming: bool, blocked: bool, in_flight_bytes: int, stuck: int = 0
    ) -> Turn:
        """What the next transaction should do; suspects, and what is `stuck`, take no room."""
        room = self._settings.window - (len(self._held) - len(self._suspects) - stuck)
        if not claiming or blocked or in_flight_bytes > MAX_IN_FLIGHT_BYTES:
            room = 0
        limit = max(0, min(self._limit, room))
        # Small claims from a nearly full window cost as much as large ones: wait for half a batch.
        if self._held and limit < min(self._limit, self._settings.window) // 2:
            limit = 0
        lanes = self._lanes.next_claim(now, limit, settling=bool(self._done)) if limit else None
        if lanes:
            limit -= lanes.limit
        routes = self.waiting.claim(now, limit) if limit else None
        if routes:
            limit -= routes.limit
        floor = self._cursor.floor(now) if limit else 0
        return Turn(self._done, floor, limit, self._claim_id, self._settings.lease, lanes, routes)

    def nothing_to_claim(self, turn: Turn, seconds: float = 0.0) -> None:
        """The turn was skipped: a look that took so long found nothing to claim."""
        self._cursor.looked(seconds)
        if turn.lanes:
            self._lanes.claimed(turn.lanes, [], seconds)

    def turned(self, turn: Turn, reply: Reply, now: float, seconds: float = 0.0) -> None:
        """The turn was committed within `seconds`: confirms are settled, its rows are ours."""
        self._done = []
        self._claim_id = following(self._claim_id)
        if turn.lanes:
            self._lanes.claimed(turn.lanes, reply.news, seconds)
        if turn.limit:
            self._cursor.looked(seconds)
            self._cursor.claimed([row.id for row in reply.rows], turn.limit)
        if turn.routes:
            self.waiting.claimed(turn.routes, reply.waited, now)
        for row in reply.claimed:
            self._held[row.id] = Held(row.id, row.slot, turn.claim_id)

    def fetched(self, fetched: Fetched, now: float) -> Sorted:
        """Sort what was fetched by what is to be done with it."""
        allowed, refused = self._policy.sort(fetched.messages)
        allowed, held = self.waiting.sort(allowed, now)
        refused += held
        publish = [m for m in allowed if not (m.expired or m.suspicion)]
        if self._pauses or len(publish) < len(allowed):
            publish = []
            for message in allowed:
                if (refusal := self._sort(message, publish, now)) is not None:
                    refused.append(refusal)
        refused += [too_large(*oversized) for oversized in fetched.oversized]
        self._adapt(fetched)
        return Sorted(publish, refused, fetched.too_large)

    def _sort(self, message: Message, publish: list[Message], now: float) -> Refusal | None:
        """Put it among those to publish, or among the suspects, unless it is refused."""
        if message.expired:
            if (told := to_be_told(message)) is None:
                return Refusal(message, Reason.EXPIRED, "it expired before it could be published")
            message = told
        if not self._pauses.let_through(message, now):
            return self._pauses.held(message)
        if not message.suspect and not self._pauses.apart(message):
            publish.append(message)
        elif self._suspects.full:
            detail = "a channel died with it in flight: it waits for room in quarantine"
            return Refusal(message, Reason.SUSPECTED, detail)
        else:
            self._pauses.keep_letting_through(message)
            self._suspects.add(message)
        return None

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

    def next_suspects(self, count: int, now: float) -> tuple[list[Message], list[Refusal]]:
        """Up to so many suspects to publish in quarantine, and those whose route is paused."""
        publish: list[Message] = []
        held: list[Refusal] = []
        while taken := self._suspects.take(count - len(publish)):
            for message in taken:
                if self._pauses.let_through(message, now):
                    publish.append(message)
                else:
                    held.append(self._pauses.held(message))
        return publish, held

    def drop_suspects(self) -> list[Message]:
        """All suspects that were still to be published: they are to be parked."""
        return self._suspects.take(len(self._suspects))

    def suspect_again(self, messages: Iterable[Message]) -> None:
        """Publish these in quarantine once more, unless their claim has ended meanwhile."""
        for message in messages:
            if self._held.get(message.id) == message.held:
                self._pauses.keep_letting_through(message)
                self._suspects.add(message)

    def confirmed(self, messages: Collection[Message], now: float) -> None:
        """The broker has them: they wait to be settled."""
        for message in messages:
            self._held.pop(message.id, None)
        self._done += messages
        self._pauses.confirmed(messages, now)

    def refused(self, refusals: Iterable[Refusal], now: float) -> None:
        """The broker would not have them: their routes are paused, where it is over these."""
        self._pauses.refused(refusals, now)

    def look_for_waiting(self, now: float) -> bool:
        """Whether to ask the database by now which routes have messages waiting."""
        return self._pauses.look_due(now)

    def found_waiting(self, keys: Iterable[str]) -> None:
        """Messages wait for these routes, or for these holds."""
        self.waiting.found(keys)

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
        message, reason, settings = refusal.message, refusal.reason, self._settings
        free = reason in FREE
        attempts = message.attempts if free else message.attempts + 1
        final = not free and (reason in FINAL or attempts >= settings.max_attempts)
        ending = "expired" if message.expired else "dead"
        route = written(route_of(message)) if reason in WAITING else None
        if refusal.wait is not None:
            route, delay = refusal.wait
        elif route is not None:
            delay = held_delay()
        elif reason is Reason.UNKNOWN_TASK:
            delay = unknown_delay()
        elif free:
            delay = turn_delay(settings.retry_delay)
        else:
            delay = retry_delay(settings.retry_delay, max(1, attempts))
        return Parking(
            message,
            state=ending if final else "retry",
            attempts=attempts,
            suspicion=message.suspicion if reason in STILL_SUSPECT else 0,
            delay=delay,
            error=f"{reason}: {refusal.detail}",
            route=route,
            rank=rank_of(message.properties, lowest_first=self._lowest_first) if route else 0,
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
        self._pauses.forget(gone)
        self._cursor.rewind()

    def renewal(self, now: float) -> list[Held]:
        """What is to be renewed now: mostly nothing."""
        if (before := self._renewal.next(now, self._claim_id)) is None:
            return []
        return [held for held in self._held.values() if is_before(held.claim_id, before)]

    def still_ours(self, claimed_at: float, now: float) -> bool:
        """Whether a claim made then is surely ours now, and not another relay's."""
        return now - claimed_at < self._settings.lease / 2
