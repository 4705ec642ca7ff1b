"""What is told of many latencies."""

from collections.abc import Iterable


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """The median and the 99th of a hundred, in milliseconds."""
    ordered = sorted(1000 * each for each in seconds)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[int(len(ordered) * 0.99)]}


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """The same, and the longest."""
    every = list(seconds)
    return {**percentiles(every), "longest": 1000 * max(every)}
