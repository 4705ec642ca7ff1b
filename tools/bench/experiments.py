"""The catalogue: every measurement by name, in the order in which they take turns in a round."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.instruments.run import Run
from bench.lab import Lab
from bench.load.queues import CLASSIC, CLASSIC_V2, LAZY, QUORUM, Kind
from bench.measurements import (
    audit,
    backlog,
    commits,
    fence,
    inbox,
    latency,
    limit,
    many,
    naive,
    outboxes,
    pauses,
    peers,
    plain,
    producer,
    rabbit,
    rates,
    receipts,
    redis_list,
    refusals,
    retention,
    sustained,
    tracing,
)
from bench.scale import Scale

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Experiment:
    """A measurement; what it returns is kept under its name, or under names that begin with it."""

    name: str
    measure: Callable[[Lab], Mapping[str, Values]]
    #: takes long: not made in every round
    heavy: bool = False


@dataclass(frozen=True, slots=True)
class Brokers:
    """Which brokers there are to measure against."""

    rabbitmq: bool = True
    valkey: bool = True


def catalogue(scale: Scale, has: Brokers) -> list[Experiment]:
    """What can be measured with these servers, at this scale."""
    return [
        *(_rabbitmq(scale) if has.rabbitmq else ()),
        *_stub(scale),
        *(_redis(scale) if has.valkey else ()),
        _parts("producer", producer.measure),
        _parts("many", many.measure, heavy=True),
        _parts("inbox", inbox.measure),
        *((_parts("receipts", receipts.measure, heavy=True),) if has.rabbitmq else ()),
        _parts("tracing", tracing.measure, heavy=True),
        _parts("commits", commits.measure),
        _parts("retention", retention.measure, heavy=True),
        _parts("audit", audit.measure, heavy=True),
        *(_over_time(scale) if has.rabbitmq else ()),
    ]


#: Kind, number of queues, and whether it is measured only at full scale.
KINDS: Final[tuple[tuple[Kind, int, bool], ...]] = (
    (CLASSIC, 1, False),
    (QUORUM, 1, False),
    (CLASSIC, 4, True),
    (CLASSIC_V2, 1, True),
    (LAZY, 1, True),
)


def name_of(kind: Kind, count: int) -> str:
    """`1 quorum queue`, `4 classic queues`."""
    return f"{count} {kind.name} queue{'s' if count > 1 else ''}"


def _rabbitmq(scale: Scale) -> Iterator[Experiment]:
    for kind, count, rare in KINDS:
        if rare and not scale.all_kinds:
            continue
        total = scale.slow_queue if kind is CLASSIC and count == 1 else scale.fast_queue
        name = name_of(kind, count)
        yield _run(f"{name}, limit", partial(limit.measure, kind=kind, count=count, total=total))
        for relays in (1, 2):
            measure = partial(rabbit.measure, kind=kind, count=count, total=total, relays=relays)
            yield _run(f"{name}, {_processes(relays)}", measure)
        if count == 1 and not rare:
            one_by_one = partial(naive.measure, kind=kind, total=scale.one_by_one)
            yield _run(f"{name}, naive relay", one_by_one)
            if peers.wanted():
                for peer in peers.PEERS:
                    drain_it = partial(peers.measure, peer=peer, kind=kind, total=scale.one_by_one)
                    yield _run(f"{name}, {peer.name}", drain_it)
    yield _run(
        "plain .delay(), waiting for each confirm",
        partial(plain.measure, total=scale.one_by_one, confirm=True),
    )
    yield _run(
        "plain .delay(), no confirm", partial(plain.measure, total=scale.one_by_one, confirm=False)
    )


def _stub(scale: Scale) -> Iterator[Experiment]:
    for relays in (1, 2):
        name = f"stub broker, {_processes(relays)}"
        yield _run(name, partial(backlog.stub, total=scale.stub, relays=relays))
    for pending in scale.backlogs:
        heavy = pending > 500_000
        yield _run(f"backlog of {pending:,}", partial(backlog.head, pending=pending), heavy=heavy)
    yield _run("horizon free", partial(backlog.stub, total=scale.horizon))
    yield _run("horizon held", backlog.held_horizon)
    yield _run(f"among {scale.sent:,} sent", backlog.among_sent, heavy=scale.sent > 500_000)
    yield Experiment("relay, WAL per message", _wal)
    yield _parts("sustained", sustained.measure, heavy=True)


def _wal(lab: Lab) -> Mapping[str, Values]:
    run = backlog.written_ahead(lab)
    return {"relay, WAL per message": {**run.values(), "wal": run.wal_bytes / run.messages}}


def _redis(scale: Scale) -> Iterator[Experiment]:
    yield _run("Redis, limit", partial(redis_list.limit, total=scale.redis))
    for relays in (1, 2):
        measure = partial(redis_list.relay, total=scale.redis, relays=relays)
        yield _run(f"Redis, {_processes(relays)}", measure)
    yield _run(
        "Redis, 1 process, confirmed by fsync",
        partial(redis_list.relay, total=scale.redis, relays=1, confirm="fsync"),
    )
    yield _run("Redis, naive relay", partial(redis_list.one_by_one, total=scale.one_by_one))


def _over_time(scale: Scale) -> Iterator[Experiment]:
    for doorbell, way in (("auto", ""), ("off", ", polling")):
        for rate in scale.latency_rates:
            measure = partial(latency.measure, rate=rate, doorbell=doorbell)
            yield _parts(f"latency at {rate}/s{way}", measure)
        yield _parts(f"idle{way}", partial(latency.idle, doorbell=doorbell), heavy=True)
    yield _parts("refusals", refusals.measure, heavy=True)
    yield _parts("many outboxes", outboxes.measure, heavy=True)
    yield _parts("beside a standby", fence.measure, heavy=True)
    yield _parts("pauses", pauses.measure, heavy=True)
    yield _parts("rates", rates.measure, heavy=True)


def _processes(count: int) -> str:
    return f"{count} process{'es' if count > 1 else ''}"


def _run(name: str, measure: Callable[[Lab], Run], *, heavy: bool = False) -> Experiment:
    return Experiment(name, lambda lab: {name: measure(lab).values()}, heavy)


def _parts(
    name: str, measure: Callable[[Lab], Mapping[str, Values]], *, heavy: bool = False
) -> Experiment:
    """An experiment of several parts, each kept under a name of its own."""

    def named(lab: Lab) -> Mapping[str, Values]:
        return {f"{name}, {part}": values for part, values in measure(lab).items()}

    return Experiment(name, named, heavy)
