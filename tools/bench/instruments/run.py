"""What one run found: its rate and costs, whoever sent the messages; and a stopwatch for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, process_time


@dataclass(frozen=True, slots=True)
class Run:
    """Messages, the seconds they took, CPU seconds by who spent them, silence and WAL.

    Who: the `sender` (a relay or a plain producer), `postgres`, the `broker`. Silence is the
    longest time, in seconds, in which no message was done.
    """

    messages: int
    seconds: float
    cpu: dict[str, float]
    silence: float
    wal_bytes: int = 0

    def values(self) -> dict[str, float]:
        """Messages a second, the CPU that one message cost, and the silence."""
        costs = {who: 1e6 * spent / self.messages for who, spent in self.cpu.items()}
        return {"rate": self.messages / self.seconds, **costs, "silence": self.silence}


@dataclass(slots=True)
class Stopwatch:
    """Wall-clock and CPU seconds of this process while a block ran.

    Where the block calls `beat` for what it has done, also the longest time between two beats.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    silence: float = 0.0
    last_beat: float = field(default_factory=perf_counter)

    def beat(self) -> None:
        """Something is done."""
        now = perf_counter()
        self.silence = max(self.silence, now - self.last_beat)
        self.last_beat = now


@contextmanager
def timed() -> Iterator[Stopwatch]:
    """Measure a block."""
    watch = Stopwatch()
    began, spent = perf_counter(), process_time()
    yield watch
    watch.beat()
    watch.seconds, watch.cpu = perf_counter() - began, process_time() - spent
