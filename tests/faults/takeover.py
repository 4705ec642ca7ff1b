"""When a new leader took its first commit, had a standby, and a relay sent a message from there.

A thread for each server that may become the leader goes there past everything that leads to the
leader of the day. As soon as it can, it commits a message, and looks for what is sent from then on.
All times are of one monotonic clock. Each fail-over is a line of JSON in a file; a run of the tests
ends with tables of its own.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Final, LiteralString, NamedTuple, Self

import psycopg

from tests.faults.ledger import Ledger
from tests.fixtures.waiting import wait_until

FILE: Final = Path(__file__).resolve().parents[2] / ".faults" / "takeovers.jsonl"
_PAUSE: Final = 0.02

STANDBY: LiteralString = "SELECT pg_is_in_recovery()"
NEWEST: LiteralString = "SELECT max(sent_at) FROM outbox.receipt"
#: As the fence counts them.
STANDBYS: LiteralString = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn IS NOT NULL"

#: What the cluster did, and what the relays did: two tables, as a page shows eight columns at most.
_OF_CLUSTERS: Final = (
    "cluster",
    "what befell the leader",
    "first commit after",
    "a standby after",
    "whole again after",
)
_OF_RELAYS: Final = (
    "cluster",
    "way",
    "what befell the leader",
    "fail-overs",
    "lost",
    "sent twice",
    "sent again after",
    "at most",
)


@dataclass(frozen=True, slots=True)
class Takeover:
    """One fail-over as one relay saw it; times in seconds."""

    strike: str
    cluster: str
    way: str
    #: From the strike to the new leader's first commit; from there to its first standby, and to the
    #: first message sent.
    leader: float
    standby: float
    sent: float
    #: From the end of what struck until all members were well.
    back: float
    lost: int
    duplicated: int
    #: Committed, and lost by the cluster itself.
    forgotten: int

    def write(self) -> None:
        """Add it to the file."""
        FILE.parent.mkdir(exist_ok=True)
        rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in asdict(self).items()}
        with FILE.open("a") as file:
            file.write(json.dumps(rounded) + "\n")


class Seen(NamedTuple):
    """When a leader took its first commit, had a standby, and sent a message; monotonic clock."""

    led: float
    followed: float
    sent: float


class Witness:
    """Watches servers for the length of a block; one of them is going to lead.

    What is committed there stands in the `ledger`.
    """

    def __init__(self, ledger: Ledger, urls: Sequence[str]) -> None:
        self._servers = [_Server(ledger, url) for url in urls]

    def __enter__(self) -> Self:
        for server in self._servers:
            server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self._servers:
            server.stop()

    def wait_sent(self, seconds: float) -> tuple[float, float]:
        """When one of them took a commit, and when a message was sent there."""
        wait_until(lambda: self._first("led"), seconds, "a commit at another server")
        wait_until(lambda: self._first("sent"), seconds, "a message that was sent from there")
        return min(self._first("led")), min(self._first("sent"))

    def wait(self, seconds: float) -> Seen:
        """That, and when it had a standby."""
        led, sent = self.wait_sent(seconds)
        wait_until(lambda: self._first("followed"), seconds, "a standby of another server")
        return Seen(led, min(self._first("followed")), sent)

    def _first(self, what: str) -> list[float]:
        """The times at which it came about at a server."""
        times: Iterable[float | None] = (getattr(server, what) for server in self._servers)
        return [time for time in times if time is not None]


class _Server(Thread):
    """Commits a message at one server; then looks for messages that are sent."""

    def __init__(self, ledger: Ledger, url: str) -> None:
        super().__init__(name="witness", daemon=True)  # a commit may wait for a standby
        self._ledger, self._url, self._over = ledger, url, Event()
        self.led: float | None = None
        self.followed: float | None = None
        self.sent: float | None = None

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def run(self) -> None:
        while not self._over.wait(_PAUSE):
            with (
                suppress(psycopg.Error),  # it does not run, or goes down again
                psycopg.connect(self._url, autocommit=True, connect_timeout=2) as connection,
            ):
                self._write(connection)
                self._look(connection)
                return

    def _write(self, connection: psycopg.Connection) -> None:
        while self.led is None and not self._over.wait(_PAUSE):
            if connection.execute(STANDBY).fetchone() == (False,):
                self._ledger.write(connection, 1)
                self.led = monotonic()

    def _look(self, connection: psycopg.Connection) -> None:
        # What is there by now may be what the leader before has sent.
        before = connection.execute(NEWEST).fetchone()
        while None in (self.sent, self.followed) and not self._over.wait(_PAUSE):
            if self.followed is None and connection.execute(STANDBYS).fetchone() != (0,):
                self.followed = monotonic()
            if self.sent is None and connection.execute(NEWEST).fetchone() != before:
                self.sent = monotonic()


def length() -> int:
    """How much the file holds."""
    return FILE.stat().st_size if FILE.exists() else 0


def since(position: int) -> list[Takeover]:
    """What was added to the file after that."""
    if length() <= position:
        return []
    with FILE.open() as file:
        file.seek(position)
        return [Takeover(**json.loads(line)) for line in file]


def tables(takeovers: Iterable[Takeover]) -> list[str]:
    """The lines of two tables: each kind of fail-over, and all of a cluster and a way together."""
    clusters: dict[tuple[str, ...], list[Takeover]] = {}
    relays: dict[tuple[str, ...], list[Takeover]] = {}
    for each in takeovers:
        for strike in (each.strike, "all"):
            clusters.setdefault((each.cluster, strike), []).append(each)
            relays.setdefault((each.cluster, each.way, strike), []).append(each)
    if not relays:
        return []
    return [
        *_table(_OF_CLUSTERS, [(*kind, *_cluster(them)) for kind, them in _sorted(clusters)]),
        "",
        *_table(_OF_RELAYS, [(*kind, *_relay(them)) for kind, them in _sorted(relays)]),
    ]


def _sorted(
    kinds: dict[tuple[str, ...], list[Takeover]],
) -> list[tuple[tuple[str, ...], list[Takeover]]]:
    """All of them together come first."""
    return sorted(kinds.items(), key=lambda item: (*item[0][:-1], item[0][-1] != "all", *item[0]))


def _cluster(them: Sequence[Takeover]) -> list[object]:
    times = zip(*((each.leader, each.standby, each.back) for each in them), strict=True)
    return [f"{median(each):.1f} s" for each in times]


def _relay(them: Sequence[Takeover]) -> list[object]:
    sent = [each.sent for each in them]
    lost, twice = sum(each.lost for each in them), sum(each.duplicated for each in them)
    return [len(them), lost, twice, f"{median(sent):.1f} s", f"{max(sent):.1f} s"]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = (head, ["---"] * len(head), *rows)
    return [f"| {' | '.join(map(str, cells))} |" for cells in lines]
