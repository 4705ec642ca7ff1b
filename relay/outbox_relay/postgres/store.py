"""The outbox as the relay sees it: claim, settle, park, release. Each call is one transaction.

Every call raises StoreLost where the database is gone or silent (the connection is then closed and
must be opened anew) and SchemaError where the tables are not what this relay was written for.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from time import monotonic
from typing import Any, Final

from outbox_relay.core.claim import Claim, ClaimedRow, Fetched, Reply, Turn
from outbox_relay.core.message import Held, Message, Parking
from outbox_relay.core.size import Oversized
from outbox_relay.errors import SchemaError
from outbox_relay.postgres import chores, orphans, standbys, statements, turns, waiting
from outbox_relay.postgres.database import BoundedConnection, connect, leave, translated
from outbox_relay.postgres.doorbell import Bell, Look
from outbox_relay.postgres.holds import Holding
from outbox_relay.postgres.literals import bigints, storable
from outbox_relay.postgres.pipeline import Pipeline, Query
from outbox_relay.postgres.session import Session
from outbox_relay.settings.values import Doorbell

NAME: Final = "outbox-relay"
#: Messages fetched with all others of their claim, in bytes; larger ones are fetched after them.
SMALL: Final = 32 << 10
#: Larger messages fetched at a time, in bytes; a single larger one is fetched alone.
MAX_FETCH_BYTES: Final = 16 << 20
#: The largest body that the table takes, in bytes.
MAX_BODY: Final = 128 << 20
#: Seconds that SETTLE_LATE may take to be planned: no other relay claims within so short a time.
ON_ITS_WAY: Final = 1.0
#: What the loop asks all the time.
PREPARED: Final = (
    statements.SETTLE,
    statements.CLAIM,
    statements.PROBE,
    statements.FETCH,
    statements.EXPIRE,
    chores.PROMOTE,
    statements.CLAIM_LANES,
    waiting.CLAIM_WAITING,
    standbys.STANDBYS,
)


class Store(Session):
    """A connection to the outbox. Open one with `Store.connect`."""

    def __init__(
        self, connection: BoundedConnection, schema: str, doorbell: Doorbell, fence: int = 0
    ) -> None:
        super().__init__(connection, schema)
        self._fence = fence
        self.bell = Bell(connection, self._run, doorbell)
        self.holding = Holding(self._run)
        self._routes = waiting.Routes(self._run)
        self._pipeline = Pipeline(connection)
        self._asked: tuple[Claim | None, Turn | None] = (None, None)

    @classmethod
    def connect(
        cls,
        url: str,
        schema: str,
        statement_timeout: float,
        *,
        doorbell: Doorbell = "auto",
        name: str = NAME,
        fence: int = 0,
        left: BoundedConnection | None = None,
    ) -> "Store":
        """Connect as `name`, set the session up and check the schema's version.

        With a `fence` of so many standbys, each reply tells how far these are.
        """
        connection = connect(url, name, statement_timeout, prepare=True, left=left)
        store = cls(connection, schema, doorbell, fence)
        try:
            store._begin(store._pipeline, PREPARED)
            if fence and (login := store._run(standbys.WITHOUT_RIGHT)[0][0]):
                raise SchemaError(standbys.lacking(login))
        except BaseException:
            connection.close()
            raise
        return store

    def leave(self) -> BoundedConnection | None:
        """Hold nothing more, and return the session if another store may go on with it."""
        self.bell.end()
        return self._connection if leave(self._connection) else None

    def ask(self, claimed: Claim | None, turn: Turn | None) -> None:
        """Send for the messages of rows claimed before, and for a turn: settle, and claim more.

        Both are one transaction, whose outcome `reply` returns; until then the caller is free to
        do anything but to use this store.
        """
        self._asked = claimed, turn
        queries = self._fetches(claimed) if claimed else []
        if turn:
            queries += turns.queries(turn)
        if self._fence:
            queries.append(standbys.query(self._fence))
        with translated():
            self._pipeline.ask(*queries)

    def reply(self) -> Reply:
        """What was asked for, committed. Claimed rows come in no order, messages oldest first."""
        claimed, turn = self._asked
        with translated():
            replies = self._pipeline.replies()
        told = replies.pop()[0] if self._fence else None
        rows = replies.pop() if turn and turn.limit else []
        waited = waiting.rows(replies.pop()) if turn and turn.routes else []
        heads, news = turns.from_lanes(replies.pop()) if turn and turn.lanes else ([], [])
        settled = turns.settlements(turn.done, turn.lease_seconds) if turn else []
        unsettled = [id_ for _ in settled for (id_,) in replies.pop()]
        found = [message for messages in replies for message in messages]
        fetched = self._complete(claimed, found) if claimed else None
        return Reply(fetched, rows, heads, news, unsettled, waited, told)

    def round_trip(self, claimed: Claim | None, turn: Turn | None) -> Reply:
        """Ask, and wait for the reply."""
        self.ask(claimed, turn)
        return self.reply()

    def has_work(self, turn: Turn) -> bool:
        """Whether a turn could claim anything; cheaper than to try."""
        with translated():
            return bool(self._pipeline.run(Query(statements.PROBE, turns.above(turn))))

    def look(self, turn: Turn) -> Look:
        """The same, and when something will be due: what a sleeper wants to know."""
        return self.bell.look(**turns.above(turn))

    def _fetches(self, claimed: Claim) -> list[Query]:
        slots: dict[int, list[int]] = {}
        for row in claimed.rows:
            slots.setdefault(row.slot, []).append(row.id)
        common = {"claim_id": claimed.claim_id, "clock": monotonic(), "small": SMALL}
        return [
            Query(statements.FETCH, {**common, "slot": slot, "ids": bigints(ids)}, _message)
            for slot, ids in slots.items()
        ]

    def _complete(self, claim: Claim, found: list[Message]) -> Fetched:
        """Add large messages, as far as MAX_FETCH_BYTES reach, and what is known of attempts."""
        unseen: list[Held] = []
        if len(found) < len(claim.rows):
            there = {message.id for message in found}
            gone = (row for row in claim.rows if row.id not in there)
            unseen = [Held(row.id, row.slot, claim.claim_id) for row in gone]
        too_large: list[Held] = []
        oversized: list[Oversized] = []
        if large := [message for message in found if message.body is None]:
            limit = claim.max_body or MAX_BODY
            whole, sizes = self._large(large, limit)
            oversized = [
                Oversized(m._replace(**EMPTY), sizes[m.id], limit)
                for m in large
                if sizes.get(m.id, 0) > limit
            ]
            too_large = [m.held for m in large if m.id not in whole and sizes.get(m.id, 0) <= limit]
            found = [whole.get(m.id, m) for m in found if m.body is not None or m.id in whole]
        marked = {row.id: row for row in claim.rows if row.attempts or row.suspicion}
        messages = [_mark(m, marked) for m in found] if marked else found
        messages.sort(key=_by_id)
        return Fetched(messages, too_large, unseen, oversized)

    def _large(
        self, messages: Sequence[Message], limit: int
    ) -> tuple[dict[int, Message], dict[int, int]]:
        """Return the messages that are to be had whole now, and the size of every body."""
        parameters = {
            "ids": bigints(message.id for message in messages),
            "slots": bigints(message.slot for message in messages),
            "bytes": MAX_FETCH_BYTES,
            "limit": limit,
        }
        by_id = {message.id: message for message in messages}
        whole, sizes = {}, {}
        for id_, size, *large in self._run(statements.FETCH_LARGE, parameters):
            sizes[id_] = size
            columns = dict(zip(statements.LARGE, large, strict=True))
            if columns["body"] is not None:
                whole[id_] = by_id[id_]._replace(**columns)
        return whole, sizes

    def drop_orphans(self, held: Sequence[Held]) -> int:
        """Delete claimed work whose message is gone; returns how much.

        The rest, which was moved to another slot between claim and fetch, is given back.
        """
        self._run(orphans.DROP_ORPHANS, _held(held))
        dropped = self._cursor.rowcount
        self.release(held)
        return dropped

    def park_detached(self, held: Sequence[Held], delay: float) -> int:
        """Put off claimed work whose slot is detached for so many seconds; returns how much."""
        self._run(orphans.PARK_DETACHED, {**_held(held), "delay": delay})
        return self._cursor.rowcount

    def settle_late(self, messages: Sequence[Message]) -> set[int]:
        """Settle what `Reply.unsettled` named; returns the ids that are still locked."""
        sent, now = [message for message in messages if not message.expired], monotonic()
        confirmed = {
            "ids": [message.id for message in sent],
            "slots": [message.slot for message in sent],
            "message_ids": [message.message_id for message in sent],
            "ages": [now - message.claimed + ON_ITS_WAY for message in sent],
        }
        return {id_ for (id_,) in self._run(statements.SETTLE_LATE, confirmed)}

    def expire(self, messages: Sequence[Message]) -> set[int]:
        """Note that they expired unpublished; returns the ids of those that are locked."""
        rows = self._run(statements.EXPIRE, turns.ended(messages, turns.UNPUBLISHED))
        return {id_ for (id_,) in rows}

    def park(self, parkings: Sequence[Parking]) -> set[int]:
        """Take refused messages out of the hot table, unless another relay has claimed them.

        Returns the ids of those that somebody's open transaction has locked: they stay there.
        """
        rows = self._run(
            statements.PARK,
            {
                "ids": [p.message.id for p in parkings],
                "claim_ids": [p.message.claim_id for p in parkings],
                "states": [p.state for p in parkings],
                "attempts": [p.attempts for p in parkings],
                "suspicions": [p.suspicion for p in parkings],
                "delays": [p.delay for p in parkings],
                "errors": [storable(p.error, self._charset) for p in parkings],
                "routes": [p.route for p in parkings],
                "ranks": [p.rank for p in parkings],
            },
        )
        return {id_ for (id_,) in rows}

    def promote(self, limit: int) -> int:
        """Move what has become due back to the work table; returns how many, at most `limit`."""
        with translated():
            return int(self._pipeline.run(Query(chores.PROMOTE, {"limit": limit}))[0][0])

    def set_apart(self, error: str) -> str | None:
        """Give up the first of what is due; returns its message id, None where it is locked."""
        rows = self._run(chores.SET_APART, {"error": storable(error, self._charset)})
        return str(rows[0][0]) if rows else None

    def waiting_routes(self) -> list[str]:
        """The routes that messages wait for; of very many, others each time."""
        return self._routes.next()

    def release(self, held: Iterable[Held], *, suspicious: bool = False) -> None:
        """Give back what is held; `suspicious` if a broker may have died of it."""
        self._run(statements.RELEASE, {**_held(held), "suspicion": int(suspicious)})

    def renew(self, held: Iterable[Held], lease_seconds: float) -> None:
        """Keep what is held for another `lease_seconds`."""
        self._run(statements.RENEW, {**_held(held), "lease_seconds": lease_seconds})

    def forget(self, messages: Sequence[Message]) -> None:
        """Delete settled messages at once."""
        ids, slots = [m.id for m in messages], [m.slot for m in messages]
        self._run(chores.FORGET, {"ids": bigints(ids), "slots": bigints(slots)})

    def anything_left(self) -> bool:
        """Whether anything due, or refused and waiting for another attempt, is still there."""
        return bool(self._run(chores.LEFT)[0][0])


#: The large columns of a message that is not fetched.
EMPTY: Final[dict[str, Any]] = {"headers": b"{}", "properties": b"{}", "body": b"", "declare": "[]"}
#: What Message._make does, in C.
_message: Final = partial(tuple.__new__, Message)
_by_id: Final = attrgetter("id")


def _mark(message: Message, marked: Mapping[int, ClaimedRow]) -> Message:
    """Copy what is known of earlier attempts onto the message; almost none has any."""
    row = marked.get(message.id)
    return message._replace(attempts=row.attempts, suspicion=row.suspicion) if row else message


def _held(held: Iterable[Held]) -> dict[str, str]:
    each = list(held)
    claim_ids = {one.claim_id for one in each}
    return {"ids": bigints(one.id for one in each), "claim_ids": bigints(claim_ids)}
