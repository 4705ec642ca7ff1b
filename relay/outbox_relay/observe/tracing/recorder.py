"""Hands what ended on to OpenTelemetry, from a thread of its own: the loop never waits for traces.

What it is given goes into a bounded queue, and on as fast as a collector takes it. What finds no
room is dropped, counted, and logged once a minute. At the end it exports what is left, up to a
deadline.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final, Protocol, Self

import structlog

from outbox_relay.core.thread import ContextThread
from outbox_relay.errors import RelayError
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.tracing.spans import Plan, plan
from outbox_relay.observe.tracing.trail import Ending

log = structlog.get_logger()

#: The most endings that wait for the thread.
MAX_WAITING: Final = 10_000
#: How often the thread looks what there is to do, in seconds: what ends meanwhile is done at once.
EVERY: Final = 0.2
#: What is dropped is logged at most that often, in seconds.
LOG_EVERY: Final = 60.0
#: What waited for less cannot have been sent before: nobody is asked.
SURELY_NEW: Final = 0.2

#: Which of these were confirmed before, by id, and when: on the monotonic clock. It is asked of
#: (id, slot, claimed), and may raise RelayError.
SentBefore = Callable[[Sequence[tuple[int, int, float]]], Mapping[int, float]]


class Writes(Protocol):
    """What exports spans: `sdk.Writer`."""

    @property
    def dropped(self) -> int:
        """Spans that no collector will have, so far."""

    @property
    def ready(self) -> bool:
        """Whether there is room for more."""

    @property
    def left(self) -> int:
        """Spans that are not exported yet."""

    def write(self, plan: Plan) -> None:
        """Have the spans of a batch exported."""

    def trouble(self) -> str:
        """The last complaint since this was asked."""

    def close(self) -> None:
        """Export what is left, for as long as that takes."""


class Recorder:
    """A context manager whose end exports what is left, for at most `flush_seconds`."""

    def __init__(
        self,
        writer: Writes,
        sent_before: SentBefore,
        metrics: Metrics,
        *,
        system: str,
        flush_seconds: float,
    ) -> None:
        self._writer, self._sent_before, self._metrics = writer, sent_before, metrics
        self._system, self._flush_seconds = system, flush_seconds
        self._waiting: deque[Sequence[Ending]] = deque()
        self._count = 0
        self._lock = threading.Lock()
        self._overflown = 0  # endings, at least a span each
        self._counted = self._told = 0
        self._logged = float("-inf")
        self._stopped = threading.Event()
        self._thread = ContextThread(target=self._run, name="traces", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(self._flush_seconds)
        left = self._writer.left if self._thread.is_alive() else 0
        self._tell(left, at_once=True)

    def take(self, endings: Sequence[Ending]) -> None:
        """Have the spans of messages that were published together exported; never waits."""
        with self._lock:
            if self._count + len(endings) > MAX_WAITING:
                self._overflown += len(endings)
                return
            self._count += len(endings)
            self._waiting.append(endings)

    def _run(self) -> None:
        while not self._stopped.wait(EVERY):
            self._do()
        self._do()
        self._writer.close()

    def _do(self) -> None:
        with self._lock:
            batches, self._waiting, self._count = self._waiting, deque(), 0
        before = self._known([ending for batch in batches for ending in batch])
        for batch in batches:
            while not (self._writer.ready or self._stopped.wait(EVERY)):
                self._tell()
            self._writer.write(plan(batch, before, self._system))
        self._tell()

    def _known(self, endings: Sequence[Ending]) -> Mapping[int, float]:
        """Which were sent before; where nobody can tell, none is said to be."""
        old = [
            (each.traced.id, each.traced.slot, each.traced.claimed)
            for each in endings
            if each.traced.claimed - each.traced.born > SURELY_NEW
        ]
        try:
            return self._sent_before(old) if old else {}
        except RelayError as error:
            log.debug("replays_unknown", reason=str(error))
            return {}

    def _tell(self, left: int = 0, *, at_once: bool = False) -> None:
        """Count what was dropped, `left` included; log it, and what the SDK complains of."""
        dropped = self._overflown + self._writer.dropped + left
        if dropped > self._counted:
            self._metrics.spans_dropped.inc(dropped - self._counted)
            self._counted = dropped
        if not at_once and monotonic() - self._logged < LOG_EVERY:
            return
        trouble = self._writer.trouble()
        if dropped > self._told or trouble:
            log.warning("traces_incomplete", dropped=dropped - self._told, reason=trouble)
            self._told, self._logged = dropped, monotonic()
