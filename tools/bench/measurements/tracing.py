"""What traces cost the relay: the same drain with OUTBOX_TRACING off and on, in turns.

Every message has a `traceparent`, of which one in a hundred is sampled, as producers write them
that sample 1 %. A collector on the same machine takes what is exported.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from bench.instruments.drain import Target, drain
from bench.instruments.run import Run
from bench.lab import Lab, Unbelievable
from bench.load import messages, queues
from bench.load.queues import QUORUM, STUB, Route
from bench.programs.stub_broker import stub_brokers
from bench.programs.stub_collector import stub_collector, taken

#: Turns of each way, in one round.
TURNS: Final = 4
WAYS: Final = {"off": "off", "at 1 %": "on"}

#: Headers as an instrumented producer writes them: a trace for each message, 1 % of them sampled.
TRACED: Final = """
UPDATE outbox.message SET headers = (
    left(headers::text, -1) || ', "traceparent": "00-' || md5(id::text) || '-'
    || left(md5(message_id), 16) || CASE WHEN id % 100 = 0 THEN '-01"}' ELSE '-00"}' END)::json
"""


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Messages a second and the relay's CPU for one, by broker and way."""
    found: dict[str, Mapping[str, float]] = {}
    with stub_collector() as collector:
        with stub_brokers(1) as ((url, pid),):
            drained = partial(_drained, lab, Target((url,), (pid,)), STUB, lab.scale.stub)
            found |= {f"stub broker, {way}": each for way, each in _turns(drained, collector)}
        if lab.rabbitmq:
            drained = partial(_drained_into_a_queue, lab)
            found |= {f"1 quorum queue, {way}": each for way, each in _turns(drained, collector)}
    return found


def _drained_into_a_queue(lab: Lab, settings: Mapping[str, str]) -> Run:
    """A new one each time: a queue that has grown takes longer."""
    node = lab.require_rabbitmq()
    routes = queues.fresh(node.url(), QUORUM)
    target = Target((node.url(),), (node.process.pid,))
    run = _drained(lab, target, routes, lab.scale.fast_queue, settings)
    queues.delete(node.url(), routes)
    return run


def _drained(
    lab: Lab, target: Target, routes: Sequence[Route], total: int, settings: Mapping[str, str]
) -> Run:
    messages.reset(lab)
    messages.fill(lab, total, routes)
    lab.admin.execute(TRACED)
    messages.settle(lab)
    return drain(lab, replace(target, settings=settings), total)


def _turns(
    drained: Callable[[Mapping[str, str]], Run], collector: str
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The ways, each with what all its turns came to; every other time in the other order."""
    spent = {way: {"messages": 0.0, "seconds": 0.0, "cpu": 0.0} for way in WAYS}
    for turn in range(TURNS):
        for way, tracing in list(WAYS.items())[:: -1 if turn % 2 else 1]:
            before = taken(collector)
            run = drained({"OUTBOX_TRACING": tracing, "OTEL_EXPORTER_OTLP_ENDPOINT": collector})
            if (exported := taken(collector) > before) != (tracing == "on"):
                what = "something" if exported else "nothing"
                raise Unbelievable(f"with OUTBOX_TRACING={tracing} the collector got {what}")
            spent[way]["messages"] += run.messages
            spent[way]["seconds"] += run.seconds
            spent[way]["cpu"] += run.cpu["sender"]
    for way, sums in spent.items():
        yield (
            way,
            {
                "rate": sums["messages"] / sums["seconds"],
                "sender": 1e6 * sums["cpu"] / sums["messages"],
            },
        )
