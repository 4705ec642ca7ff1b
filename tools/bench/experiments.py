"""The catalogue: every measurement by name, in the order in which they take turns in a round."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.instruments.run import Run
from bench.lab import Lab
from bench.load import queues
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
        Experiment("producer", _named_each("producer", producer.measure)),
        Experiment("many", _named_each("many", many.measure), heavy=True),
        Experiment("inbox", _named_each("inbox", inbox.measure)),
        *(
            (Experiment("receipts", _named_each("receipts", receipts.measure), heavy=True),)
            if has.rabbitmq
            else ()
        ),
        Experiment("tracing", _named_each("tracing", tracing.measure), heavy=True),
        Experiment("commits", _named_each("commits", commits.measure)),
        Experiment("retention", _named_each("retention", retention.measure), heavy=True),
        Experiment("audit", _named_each("audit", audit.measure), heavy=True),
        *(_latency(scale) if has.rabbitmq else ()),
        *(_refusals() if has.rabbitmq else ()),
        *(_outboxes() if has.rabbitmq else ()),
        *(_fence() if has.rabbitmq else ()),
        *(_pauses() if has.rabbitmq else ()),
        *(_rates() if has.rabbitmq else ()),
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
            yield _run(f"{name}, naive relay", partial(_naive, kind=kind))
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


def _naive(lab: Lab, kind: Kind) -> Run:
    node = lab.require_rabbitmq()
    routes = queues.fresh(node.url(), kind)
    run = naive.measure(lab, node.url(), node.process.pid, routes, lab.scale.one_by_one)
    queues.await_depth(node.url(), routes, lab.scale.one_by_one)
    queues.delete(node.url(), routes)
    return run


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
    yield Experiment("sustained", _named_each("sustained", sustained.measure), heavy=True)


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


def _latency(scale: Scale) -> Iterator[Experiment]:
    for doorbell, way in (("auto", ""), ("off", ", polling")):
        for rate in scale.latency_rates:
            measure = partial(latency.measure, rate=rate, doorbell=doorbell)
            name = f"latency at {rate}/s{way}"
            yield Experiment(name, _named_each(name, measure))
        idle = partial(latency.idle, doorbell=doorbell)
        yield Experiment(f"idle{way}", _named_each(f"idle{way}", idle), heavy=True)


def _refusals() -> Iterator[Experiment]:
    yield Experiment("refusals", _named_each("refusals", refusals.measure), heavy=True)


def _outboxes() -> Iterator[Experiment]:
    name = "many outboxes"
    yield Experiment(name, _named_each(name, outboxes.measure), heavy=True)


def _fence() -> Iterator[Experiment]:
    name = "beside a standby"
    yield Experiment(name, _named_each(name, fence.measure), heavy=True)


def _pauses() -> Iterator[Experiment]:
    yield Experiment("pauses", _named_each("pauses", pauses.measure), heavy=True)


def _rates() -> Iterator[Experiment]:
    yield Experiment("rates", _named_each("rates", rates.measure), heavy=True)


def _processes(count: int) -> str:
    return f"{count} process{'es' if count > 1 else ''}"


def _run(name: str, measure: Callable[[Lab], Run], *, heavy: bool = False) -> Experiment:
    return Experiment(name, lambda lab: {name: measure(lab).values()}, heavy)


def _named_each(
    name: str, measure: Callable[[Lab], Mapping[str, Values]]
) -> Callable[[Lab], Mapping[str, Values]]:
    return lambda lab: {f"{name}, {part}": values for part, values in measure(lab).items()}
