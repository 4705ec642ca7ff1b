"""The loop never waits for traces, whatever a collector or the database does; memory is bounded."""

import threading
from collections.abc import Mapping, Sequence
from time import monotonic

import pytest
from structlog.testing import capture_logs

from outbox_relay.errors import StoreLost
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.tracing import recorder as recorder_module
from outbox_relay.observe.tracing.recorder import Recorder, SentBefore
from outbox_relay.observe.tracing.spans import Plan
from outbox_relay.observe.tracing.trail import Batch, Ending
from tests.fixtures.waiting import wait_until
from tests.relay.observe.tracing.test_spans import a_message

SECONDS = 30.0


class Writer:
    """Keeps what it is to write; a collector that takes nothing is one that is not ready."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.ready = True
        self.dropped = self.left = 0
        self.complaint = ""
        self.may_close = threading.Event()
        self.may_close.set()
        self.closed = False

    def write(self, plan: Plan) -> None:
        """Keep it."""
        self.plans.append(plan)

    def trouble(self) -> str:
        """Complain once."""
        told, self.complaint = self.complaint, ""
        return told

    def close(self) -> None:
        """Take as long as a frozen collector does."""
        self.may_close.wait(SECONDS)
        self.closed = True


def never(_: Sequence[tuple[int, int, float]]) -> Mapping[int, float]:
    """Nothing was sent before."""
    return {}


def recorder(
    writer: Writer, metrics: Metrics, sent_before: SentBefore = never, *, flush_seconds: float = 5
) -> Recorder:
    """One for RabbitMQ."""
    return Recorder(writer, sent_before, metrics, system="rabbitmq", flush_seconds=flush_seconds)


def endings(count: int) -> list[Ending]:
    """A batch that was confirmed."""
    batch = Batch(1, count, 3.0)
    return [Ending(a_message(id=n, batch=batch), 4.0) for n in range(count)]


def dropped(metrics: Metrics) -> float:
    """What the metric shows."""
    return metrics.registry.get_sample_value("outbox_spans_dropped_total") or 0.0


def test_what_it_takes_is_written_before_it_ends() -> None:
    """Batch by batch."""
    writer, metrics = Writer(), Metrics()
    with recorder(writer, metrics) as running:
        running.take(endings(3))
        running.take(endings(1))
    assert [len(plan.attempts) for plan in writer.plans] == [3, 1]
    assert writer.closed
    assert dropped(metrics) == 0


def test_a_collector_that_takes_nothing_is_waited_for_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond the bound, what ends is dropped, counted and logged."""
    monkeypatch.setattr(recorder_module, "MAX_WAITING", 10)
    writer, metrics = Writer(), Metrics()
    writer.ready = False
    with capture_logs() as logged, recorder(writer, metrics) as running:
        running.take(endings(10))
        wait_until(lambda: running._count == 0, SECONDS, "the thread to wait for the collector")
        for _ in range(5):
            running.take(endings(4))
        wait_until(lambda: dropped(metrics) == 12, SECONDS, "what was dropped to be counted")
    assert sum(len(plan.attempts) for plan in writer.plans) == 18  # what waited is not lost
    assert {entry["event"] for entry in logged} == {"traces_incomplete"}
    assert sum(entry["dropped"] for entry in logged) == 12


def test_the_end_has_a_deadline() -> None:
    """What a frozen collector has not taken by then is told as dropped."""
    writer, metrics = Writer(), Metrics()
    writer.may_close.clear()
    writer.left = 7
    began = monotonic()
    with capture_logs() as logged, recorder(writer, metrics, flush_seconds=0.1):
        pass
    writer.may_close.set()
    assert monotonic() - began < SECONDS / 2
    assert [(each["event"], each["dropped"]) for each in logged] == [("traces_incomplete", 7)]


def test_a_complaint_is_told_though_nothing_was_dropped() -> None:
    """Such as a variable that the SDK could not follow."""
    writer, metrics = Writer(), Metrics()
    writer.complaint = "Invalid value for OTEL_BSP_SCHEDULE_DELAY"
    with capture_logs() as logged, recorder(writer, metrics):
        pass
    (entry,) = logged
    assert (entry["event"], entry["dropped"]) == ("traces_incomplete", 0)
    assert "OTEL_BSP_SCHEDULE_DELAY" in entry["reason"]


def test_without_the_database_a_replay_is_not_known() -> None:
    """The spans are written all the same."""

    def lost(_: Sequence[tuple[int, int, float]]) -> Mapping[int, float]:
        raise StoreLost("the database does not answer")

    writer, metrics = Writer(), Metrics()
    with recorder(writer, metrics, lost) as running:
        running.take(endings(1))
    assert [len(plan.waits) for plan in writer.plans] == [1]


def test_only_what_waited_is_asked_about() -> None:
    """What was claimed as soon as it was committed cannot have been sent before."""
    asked: list[tuple[int, int, float]] = []

    def sent_before(claimed: Sequence[tuple[int, int, float]]) -> Mapping[int, float]:
        asked.extend(claimed)
        return {2: 0.5}

    writer, metrics = Writer(), Metrics()
    quick = a_message(id=1, born=1.99, waiting=1.99)
    with recorder(writer, metrics, sent_before) as running:
        running.take([Ending(quick, 4.0), Ending(a_message(id=2), 4.0)])
    assert asked == [(2, 3, 2.0)]
    ((first, second),) = [plan.attempts for plan in writer.plans]
    assert [event.name for event in (*first.events, *second.events)] == ["outbox.replayed"]
