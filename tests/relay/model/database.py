"""The outbox as a dictionary: each method does what the statement of its name does in SQL.

`test_honest.py` compares it with Postgres. Every call may fail before it is carried out and after:
then the relay does not know whether it was.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from outbox_relay.core.backlog import History
from outbox_relay.core.claim import Claim, ClaimedRow, Fetched, Reply, Turn
from outbox_relay.core.holds import Hold
from outbox_relay.core.message import Held, Message, Parking
from outbox_relay.errors import StoreLost
from tests.relay.messages import a_message
from tests.relay.model.hub import Clock, Process


@dataclass(frozen=True, slots=True)
class Ready:
    """A row of work."""

    attempts: int = 0
    suspicion: int = 0
    claim_id: int | None = None
    until: float = -inf


@dataclass(frozen=True, slots=True)
class Parked:
    """A row that waits for its time or for a person."""

    state: str
    available_at: float
    attempts: int = 0
    suspicion: int = 0
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a copy of the disk holds."""

    messages: dict[int, Message]
    ready: dict[int, Ready]
    parked: dict[int, Parked]
    receipts: list[int]
    last: int


class ModelDatabase:
    """Tables and clock; `write` is told which rows a failure write is about to touch."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.up = True
        self.session = 0  # sessions opened before the last outage are gone
        # How often it happened.
        self.connected = self.suspects = self.stale = self.late = self.passed_over = 0
        self.messages: dict[int, Message] = {}
        self.ready: dict[int, Ready] = {}
        self.parked: dict[int, Parked] = {}
        self.receipts: list[int] = []
        self.waited: list[tuple[ClaimedRow, str]] = []
        self.open: dict[int, tuple[Message, float]] = {}  # inserted, not committed
        self.locked: set[int] = set()  # by somebody's open transaction
        self.committed: set[int] = set()  # the identities of all there ever were
        self.undone = 0  # receipts that were lost with what a snapshot does not know
        self._last = self._born = 0
        self._snapshot: Snapshot = self._state()

    @property
    def newest(self) -> int:
        """The identity of the message inserted last."""
        return self._born

    @property
    def now(self) -> float:
        """The database's clock, which is not the relays'."""
        return self._clock.now + 1e6

    def insert(self, available_in: float = 0.0, **columns: object) -> int:
        """Insert in a transaction that stays open."""
        self._last += 1
        self._born += 1
        id_, born = self._last, self._born
        message = a_message(id=id_, message_id=f"m{born}", body=b"%d" % born, **columns)
        self.open[id_] = message, available_in
        return id_

    def commit(self, id_: int) -> None:
        """Commit what was inserted."""
        message, available_in = self.open.pop(id_)
        self.late += id_ < max(self.messages, default=0)
        self.messages[id_] = message
        self.committed.add(self.identity(id_))
        if available_in:
            self.parked[id_] = Parked("scheduled", self.now + available_in)
        else:
            self.ready[id_] = Ready()

    def roll_back(self, id_: int) -> None:
        """Roll back what was inserted."""
        del self.open[id_]

    def identity(self, id_: int) -> int:
        """Which message has this id: after a snapshot was put back, another one may have it."""
        return int(self.messages[id_].body)

    def take_snapshot(self) -> None:
        """Of everything that is committed, as it is now."""
        self._snapshot = self._state()

    def put_back(self) -> None:
        """The state of the snapshot, ids and all; whoever was connected is not any more."""
        state = self._snapshot
        self.undone += len(self.receipts) - len(state.receipts)
        self.messages, self.ready = dict(state.messages), dict(state.ready)
        self.parked, self.receipts = dict(state.parked), list(state.receipts)
        self._last = state.last
        self.open, self.locked = {}, set()
        self.fail()
        self.up = True

    def _state(self) -> "Snapshot":
        tables = dict(self.messages), dict(self.ready), dict(self.parked), list(self.receipts)
        return Snapshot(*tables, self._last)

    def fail(self) -> None:
        """Go away, and every session with it."""
        self.up = False
        self.session += 1
        self.locked = set()

    def turn(self, turn: Turn) -> tuple[list[ClaimedRow], list[int]]:
        """SETTLE and CLAIM; what was claimed, and what was not settled.

        What CLAIM_WAITING has claimed between them is left in `waited`.
        """
        unsettled = []
        for message in turn.done:
            if self.held(message.id, (message.claim_id,)) and message.id not in self.locked:
                del self.ready[message.id]
                self.receipts.append(self.identity(message.id))
            else:
                unsettled.append(message.id)
                self.passed_over += message.id in self.locked
        self.waited = self._claim_waiting(turn)
        found = [id_ for id_ in sorted(self.ready) if id_ > turn.floor and self.claimable(id_)]
        claimed, until = found[: turn.limit], self.now + turn.lease_seconds
        for id_ in claimed:
            self.ready[id_] = replace(self.ready[id_], claim_id=turn.claim_id, until=until)
        rows = [ClaimedRow(i, 0, self.ready[i].attempts, self.ready[i].suspicion) for i in claimed]
        return rows, unsettled

    def settle_late(self, messages: Sequence[Message]) -> set[int]:
        """SETTLE_LATE."""
        same = [
            m.id
            for m in messages
            if m.id in self.messages and self.messages[m.id].message_id == m.message_id
        ]
        for id_ in same:
            if id_ not in self.locked and (id_ in self.ready or id_ in self.parked):
                self.ready.pop(id_, None)
                self.parked.pop(id_, None)
                self.receipts.append(self.identity(id_))
        return {id_ for id_ in same if id_ in self.locked and id_ in self.ready}

    def _claim_waiting(self, turn: Turn) -> list[tuple[ClaimedRow, str]]:
        """CLAIM_WAITING."""
        claimed: list[tuple[ClaimedRow, str]] = []
        until = self.now + turn.lease_seconds
        for route, limit in (
            zip(turn.routes.routes, turn.routes.limits, strict=True) if turn.routes else ()
        ):
            waiting = [id_ for id_, row in sorted(self.parked.items()) if row.route == route]
            for id_ in waiting[:limit]:
                row = self.parked.pop(id_)
                if id_ not in self.ready:
                    self.ready[id_] = Ready(row.attempts, row.suspicion, turn.claim_id, until)
                    claimed.append((ClaimedRow(id_, 0, row.attempts, row.suspicion), route))
        return claimed

    def waiting_routes(self) -> list[str]:
        """ROUTES."""
        return sorted({row.route for row in self.parked.values() if row.route is not None})

    def claimable(self, id_: int) -> bool:
        """Whether nobody has a lease or a lock on it."""
        return self.ready[id_].until < self.now and id_ not in self.locked

    def held(self, id_: int, claim_ids: Collection[int]) -> bool:
        """Whether its claim is one of these: what fences every failure write."""
        row = self.ready.get(id_)
        return row is not None and row.claim_id is not None and row.claim_id in claim_ids

    def park(self, parkings: Sequence[Parking]) -> set[int]:
        """PARK."""
        locked = set()
        for parking in parkings:
            message = parking.message
            if message.id in self.locked:
                locked |= {message.id} if self.held(message.id, (message.claim_id,)) else set()
            elif self.held(message.id, (message.claim_id,)):
                del self.ready[message.id]
                self.parked[message.id] = Parked(
                    parking.state,
                    self.now + parking.delay,
                    parking.attempts,
                    parking.suspicion,
                    parking.route,
                )
        return locked

    def release(self, held: Iterable[Held], *, suspicious: bool = False) -> None:
        """RELEASE."""
        pairs = list(held)
        claim_ids = {each.claim_id for each in pairs}
        for id_ in {each.id for each in pairs}:
            if self.held(id_, claim_ids) and id_ not in self.locked:
                row = self.ready[id_]
                suspicion = row.suspicion + suspicious
                self.suspects += suspicious
                self.ready[id_] = replace(row, until=-inf, suspicion=suspicion)

    def renew(self, held: Iterable[Held], lease_seconds: float) -> None:
        """RENEW."""
        pairs = list(held)
        claim_ids = {each.claim_id for each in pairs}
        for id_ in {each.id for each in pairs}:
            if self.held(id_, claim_ids) and id_ not in self.locked:
                self.ready[id_] = replace(self.ready[id_], until=self.now + lease_seconds)

    def promote(self) -> int:
        """PROMOTE."""
        due = [
            id_
            for id_, row in self.parked.items()
            if row.state != "dead" and row.available_at <= self.now and id_ not in self.locked
        ]
        for id_ in due:
            row = self.parked.pop(id_)
            self.ready.setdefault(id_, Ready(row.attempts, row.suspicion))
        return len(due)


class NoBell:
    """Nobody rings here: the relay polls, which is what finds all work in the end."""

    watching = another_watches = False

    def watch(self) -> None:
        """Nothing is in the way."""

    def lie_down(self) -> bool:
        """Never."""
        return False

    def get_up(self) -> None:
        """It did not lie down."""


class NothingHeld:
    """Nobody pauses anything."""

    def read(self) -> list[Hold]:
        """What is held."""
        return []


class ModelStore:
    """A session of one relay. Implements what the relay asks of `store.Store`."""

    def __init__(self, database: ModelDatabase, process: Process) -> None:
        self._database, self._process = database, process
        self.history = History("1", 0)  # no standby is promoted here
        process.wait()
        if not database.up:
            raise StoreLost("the database is away")
        self._session = database.session
        self.bell = NoBell()
        self.holding = NothingHeld()
        self._answer: Reply | None = None
        database.connected += 1

    def _ask(self) -> None:
        """The statement is on its way there."""
        self._process.wait()
        self._check()

    def _handle(self) -> None:
        """The reply is on its way back."""
        self._process.wait()
        self._check()

    def _check(self) -> None:
        if not self._database.up or self._session != self._database.session:
            raise StoreLost("the session is gone")

    def close(self) -> None:
        """Nothing to let go of."""

    def ask(self, claimed: Claim | None, turn: Turn | None) -> None:
        """Fetch what was claimed before; settle and claim: in one transaction, committed here."""
        self._ask()
        claim = self._fetch(claimed) if claimed else None
        rows, unsettled = self._database.turn(turn) if turn else ([], [])
        waited = self._database.waited if turn else []
        self._answer = Reply(claim, rows, unsettled=unsettled, waited=waited)

    def reply(self) -> Reply:
        """What was asked for, if the reply arrives."""
        self._handle()
        assert self._answer is not None
        answer, self._answer = self._answer, None
        return answer

    def round_trip(self, claimed: Claim | None, turn: Turn | None) -> Reply:
        """Ask, and wait for the reply."""
        self.ask(claimed, turn)
        return self.reply()

    def has_work(self, turn: Turn) -> bool:
        """Whether it could lease anything."""
        self._ask()
        return any(i > turn.floor and self._database.claimable(i) for i in self._database.ready)

    def _fetch(self, claimed: Claim) -> Fetched:
        messages = self._database.messages
        return Fetched(
            [
                messages[row.id]._replace(
                    claim_id=claimed.claim_id, attempts=row.attempts, suspicion=row.suspicion
                )
                for row in sorted(claimed.rows)
                if row.id in messages
            ],
            [],
            [Held(r.id, r.slot, claimed.claim_id) for r in claimed.rows if r.id not in messages],
        )

    def park_detached(self, *_: object) -> int:
        """No slot is detached here."""
        return 0

    def drop_orphans(self, held: Sequence[Held]) -> int:
        """What a snapshot that was put back does not know."""
        self.release(held)
        return 0

    def read_history(self) -> History:
        """Nothing is set back here."""
        self._ask()
        return self.history

    def settle_late(self, messages: Sequence[Message]) -> set[int]:
        """Settle what others hold by now, or have locked."""
        self._ask()
        locked = self._database.settle_late(messages)
        self._handle()
        return locked

    def park(self, parkings: Sequence[Parking]) -> set[int]:
        """Take refused messages out of the way; what is another's by now stays as it is."""
        self._ask()
        database = self._database
        others = {
            (message.id, database.ready.get(message.id), database.parked.get(message.id))
            for message in (parking.message for parking in parkings)
            if not database.held(message.id, (message.claim_id,))
        }
        database.stale += len(others)
        locked = database.park(parkings)
        for id_, ready, parked in others:
            now = database.ready.get(id_), database.parked.get(id_)
            assert now == (ready, parked), "a stale refusal was written down"
        self._handle()
        return locked

    def release(self, held: Iterable[Held], *, suspicious: bool = False) -> None:
        """Give claims back."""
        self._ask()
        self._database.release(held, suspicious=suspicious)
        self._handle()

    def renew(self, held: Iterable[Held], lease_seconds: float) -> None:
        """Keep claims."""
        self._ask()
        self._database.renew(held, lease_seconds)
        self._handle()

    def promote(self, _: int) -> int:
        """Make work of what is due."""
        self._ask()
        return self._database.promote()

    def waiting_routes(self) -> list[str]:
        """The routes that messages wait for."""
        self._ask()
        return self._database.waiting_routes()
