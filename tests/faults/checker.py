"""Compares what a producer committed with what reached the broker, in Jepsen's words.

*Lost* was committed and never arrived; *duplicated* arrived more than once; *recovered* had an
unknown outcome, and arrived; *unexpected* arrived although its transaction had not committed.
"""

from collections import Counter
from dataclasses import dataclass

from tests.faults.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of every id."""

    lost: frozenset[str]
    duplicated: int
    recovered: frozenset[str]
    unexpected: frozenset[str]

    def assert_kept(self, duplicates: int) -> None:
        """What is promised: nothing lost, nothing unexpected, duplicates within bounds."""
        assert not self.lost, f"{len(self.lost)} lost, such as {sorted(self.lost)[:3]}"
        assert not self.unexpected, f"never committed, yet sent: {sorted(self.unexpected)[:3]}"
        assert self.duplicated <= duplicates, f"{self.duplicated} duplicates, {duplicates} allowed"


def judge(ledger: Ledger, arrived: Counter[str], stored: set[str]) -> Verdict:
    """Judge; `stored` holds the ids that the outbox has rows of, whatever their state.

    An unknown id that is stored was committed after all: then its message has to be there too.
    """
    expected = ledger.committed | (ledger.unknown & stored)
    return Verdict(
        lost=frozenset(expected - arrived.keys()),
        duplicated=arrived.total() - len(arrived),
        recovered=frozenset(ledger.unknown & arrived.keys()),
        unexpected=frozenset(arrived.keys() - expected - ledger.forgotten),
    )
