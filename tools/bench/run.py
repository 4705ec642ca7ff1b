"""What one measured run found, whichever way its messages went."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, process_time


@dataclass(frozen=True, slots=True)
class Run:
    """Messages, the seconds they took, CPU seconds by who spent them, and WAL.

    Who: the `sender` (a relay or a plain producer), `postgres`, the `broker`.
    """

    messages: int
    seconds: float
    cpu: dict[str, float]
    wal_bytes: int = 0

    def values(self) -> dict[str, float]:
        """Messages a second, and the CPU that one message cost."""
        costs = {who: 1e6 * spent / self.messages for who, spent in self.cpu.items()}
        return {"rate": self.messages / self.seconds, **costs}


@dataclass(slots=True)
class Stopwatch:
    """Wall-clock and CPU seconds of this process while a block ran."""

    seconds: float = 0.0
    cpu: float = 0.0


@contextmanager
def timed() -> Iterator[Stopwatch]:
    """Measure a block."""
    watch = Stopwatch()
    began, spent = perf_counter(), process_time()
    yield watch
    watch.seconds, watch.cpu = perf_counter() - began, process_time() - spent
