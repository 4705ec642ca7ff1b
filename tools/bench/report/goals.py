"""The goals: what is measured against them, and whether it was met."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.report.figures import Figures

Measure = Callable[[Figures], float | None]


@dataclass(frozen=True, slots=True)
class Goal:
    """A number to reach, or one to stay under."""

    what: str
    measure: Measure
    limit: float
    unit: str = "times"
    at_most: bool = False

    @property
    def wanted(self) -> str:
        """The goal in words: `≥ 0.9 times`."""
        return f"{'≤' if self.at_most else '≥'} {self.limit:,g} {self.unit}"

    def verdict(self, figures: Figures) -> "Verdict | None":
        """How it went; None where it was not measured."""
        value = self.measure(figures)
        if value is None:
            return None
        return Verdict(self, value, value <= self.limit if self.at_most else value >= self.limit)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal beside what was measured."""

    goal: Goal
    value: float
    met: bool

    @property
    def measured(self) -> str:
        """The value in words."""
        digits = 0 if self.value >= 1000 else 1 if self.value >= 20 else 2
        return f"{self.value:,.{digits}f} {self.goal.unit}"


def _ratio(name: str, to: str, what: str = "rate") -> Measure:
    return lambda figures: figures.ratio(f"{name}/{what}", f"{to}/{what}")


def _median(name: str) -> Measure:
    return lambda figures: figures.median(name)


def _largest_backlog(figures: Figures) -> float | None:
    rates = [name for name in figures.names() if name.endswith("/rate")]
    backlogs = [name for name in rates if name.startswith("backlog of ")]
    return figures.ratio(backlogs[-1], "backlog of 10,000/rate") if backlogs else None


def _most(begins: str, what: str) -> Measure:
    """The largest median of all figures that begin so and end with that."""

    def measure(figures: Figures) -> float | None:
        names = [n for n in figures.names() if n.startswith(begins) and n.endswith(f"/{what}")]
        return max((figures.median(name) or 0.0 for name in names), default=None)

    return measure


GOALS: Final = (
    Goal(
        "1 classic queue, 1 process, against the limit",
        _ratio("1 classic queue, 1 process", "1 classic queue, limit"),
        0.9,
    ),
    Goal(
        "1 quorum queue, 1 process, against the limit",
        _ratio("1 quorum queue, 1 process", "1 quorum queue, limit"),
        0.75,
    ),
    Goal(
        "1 quorum queue, 2 processes, against the limit",
        _ratio("1 quorum queue, 2 processes", "1 quorum queue, limit"),
        0.85,
    ),
    Goal("1 quorum queue, 2 processes", _median("1 quorum queue, 2 processes/rate"), 32_500, "/s"),
    Goal("stub broker, 1 process", _median("stub broker, 1 process/rate"), 60_000, "/s"),
    Goal(
        "against the naive relay, 1 classic queue",
        _ratio("1 classic queue, 1 process", "1 classic queue, naive relay"),
        11,
    ),
    Goal(
        "against the naive relay, 1 quorum queue",
        _ratio("1 quorum queue, 1 process", "1 quorum queue, naive relay"),
        11,
    ),
    *(
        Goal(
            f"against {peer}, 1 {kind} queue",
            _ratio(f"1 {kind} queue, 1 process", f"1 {kind} queue, {peer}"),
            25,
        )
        for peer in ("django-celery-outbox", "faststream-outbox")
        for kind in ("classic", "quorum")
    ),
    Goal(
        "relay CPU per message, stub broker",
        _median("stub broker, 1 process/sender"),
        15,
        "µs",
        at_most=True,
    ),
    Goal(
        "relay CPU per message, 1 quorum queue",
        _median("1 quorum queue, 1 process/sender"),
        15,
        "µs",
        at_most=True,
    ),
    Goal("Redis, 1 process, against the limit", _ratio("Redis, 1 process", "Redis, limit"), 0.6),
    Goal(
        "Redis, 1 process, against the naive relay",
        _ratio("Redis, 1 process", "Redis, naive relay"),
        15,
    ),
    Goal("largest backlog against 10,000 pending", _largest_backlog, 0.9),
    Goal(
        "while a transaction holds the horizon, against without",
        _ratio("horizon held", "horizon free"),
        0.9,
    ),
    *(
        Goal(
            f"commit to received at {rate}/s, {which}",
            _median(f"latency at {rate}/s, commit to received/{which}"),
            limit,
            "ms",
            at_most=True,
        )
        for rate in (1, 50)
        for which, limit in (("p50", 2), ("p99", 6))
    ),
    Goal("idle relay, of a core", _median("idle, relay/share"), 0.1, "%", at_most=True),
    Goal(
        "transactions a second in an idle database",
        _median("idle, statements/rate"),
        1,
        "/s",
        at_most=True,
    ),
    Goal(
        "commits of eight connections, against a schema without the doorbell",
        _ratio("commits, awake", "commits, without"),
        0.97,
    ),
    Goal(
        "ordinary messages beside routes that take nothing, p99 against without",
        _ratio("refusals, beside", "refusals, without", "p99"),
        2,
        at_most=True,
    ),
    Goal(
        "WAL beside routes that take nothing",
        _median("refusals, beside/written"),
        1000,
        "kB/s",
        at_most=True,
    ),
    Goal(
        "log lines beside routes that take nothing",
        _median("refusals, beside/lines"),
        10,
        "/min",
        at_most=True,
    ),
    Goal(
        "limits of rates over a minute, from what they say, the worst",
        _most("rates, ", "deviation"),
        5,
        "%",
        at_most=True,
    ),
    Goal(
        "100 .delay() in a transaction: time against INSERTs by hand",
        _ratio(
            "producer, 100 in one transaction, INSERT by hand",
            "producer, 100 in one transaction, .delay()",
        ),
        2,
        at_most=True,
    ),
    Goal(
        "one .delay() per transaction: time against the INSERT by hand",
        _ratio(
            "producer, one per transaction, INSERT by hand",
            "producer, one per transaction, .delay()",
        ),
        1.3,
        at_most=True,
    ),
    Goal(
        "the same with 0.5 ms between",
        _ratio(
            "producer, one per transaction, INSERT by hand, 0.5 ms away",
            "producer, one per transaction, .delay(), 0.5 ms away",
        ),
        1.1,
        at_most=True,
    ),
    Goal(
        "100,000 by send_many against a loop of .delay()",
        _ratio("many, send_many", "many, a loop of .delay()"),
        6,
    ),
    Goal(
        "memory of a loop of .delay() in one transaction, over the start",
        _median("many, a loop of .delay(), memory/size"),
        64,
        "MB",
        at_most=True,
    ),
    Goal(
        "a worker that leaves receipts, against the same without, no-ops",
        _ratio("receipts, a no-op, with receipts", "receipts, a no-op, without"),
        0.95,
    ),
    Goal(
        "a worker that leaves receipts, against the same without, tasks of 1 ms",
        _ratio("receipts, a task of 1 ms, with receipts", "receipts, a task of 1 ms, without"),
        0.95,
    ),
    Goal(
        "a worker that leaves receipts, against the same without, tasks of 10 ms",
        _ratio("receipts, a task of 10 ms, with receipts", "receipts, a task of 10 ms, without"),
        0.95,
    ),
    Goal(
        "a worker that leaves receipts, against the same without, a transaction each",
        _ratio(
            "receipts, a task with a transaction, with receipts",
            "receipts, a task with a transaction, without",
        ),
        0.95,
    ),
    Goal(
        "tracing 1 % of the messages, against none, 1 quorum queue",
        _ratio("tracing, 1 quorum queue, at 1 %", "tracing, 1 quorum queue, off"),
        0.97,
    ),
    Goal("audit, messages a second", _median("audit, messages/rate"), 167_000, "/s"),
    Goal(
        "receipts read and missing messages looked for, of a relay's time",
        _median("audit, a relay's rounds/share"),
        1,
        "%",
        at_most=True,
    ),
    Goal(
        "@idempotent with a URL, against the same task on a plain pooled transaction",
        _ratio("inbox, @idempotent, a URL", "inbox, plain, on a pool"),
        0.93,
    ),
)


def verdicts(figures: Figures) -> list[Verdict]:
    """Every goal that was measured."""
    found = (goal.verdict(figures) for goal in GOALS)
    return [verdict for verdict in found if verdict is not None]
