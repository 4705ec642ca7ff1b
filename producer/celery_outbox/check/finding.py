"""What is found: a send, what will become of it, and how sure that is."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What will become of a send."""

    JOINS = "joins"
    NEEDS_USING = "needs-using"
    ON_COMMIT = "on-commit"
    NONE_IN_SIGHT = "none-in-sight"
    STORED_APART = "stored-apart"
    RUNS_HERE = "runs-here"
    UNKNOWN = "unknown"


class Certainty(StrEnum):
    """How sure a finding is."""

    CERTAIN = "certain"
    LIKELY = "likely"
    UNKNOWN = "unknown"


#: The outcomes that ask nothing of anybody, if they are certain.
SETTLED = frozenset({Outcome.JOINS, Outcome.STORED_APART})


@dataclass(frozen=True)
class Edit:
    """The characters from `start` to `end` of a source become `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Finding:
    """One send."""

    path: str
    line: int
    column: int
    call: str
    task: str | None
    outcome: Outcome
    certainty: Certainty
    reason: str
    lock: str | None = None
    edit: Edit | None = None

    @property
    def settled(self) -> bool:
        """Whether nobody need look at it."""
        sure = self.certainty is Certainty.CERTAIN
        return self.outcome in SETTLED and sure and self.lock is None


@dataclass(frozen=True)
class Unread:
    """A file that was left alone."""

    path: str
    reason: str
