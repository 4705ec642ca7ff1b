"""How much must stand behind a reply of Redis before it counts as a confirm.

| level | a confirmed message survives |
|---|---|
| memory | what Redis is configured to survive: nothing more than its reply is asked for |
| replicated:N | the loss of the primary, if one of N replicas that hold it is promoted |
| fsync | the loss of power at the primary: it is in its append-only file, on the disk |
| fsync+replicated:N | both: it is on the disks of the primary and of N replicas |
"""

import re
from dataclasses import dataclass
from typing import Final

VARIABLE: Final = "OUTBOX_REDIS_CONFIRM"


@dataclass(frozen=True, slots=True)
class Durability:
    """A level: what has to be true of a message before Redis' reply counts as a confirm."""

    fsync: bool = False
    replicas: int = 0

    @classmethod
    def parse(cls, text: str) -> "Durability":
        """Read the setting; raises ValueError."""
        match = re.fullmatch(r"memory|(fsync)|(?:(fsync)\+)?replicated:([1-9]\d?)", text)
        if not match:
            raise ValueError("say memory, replicated:N, fsync or fsync+replicated:N (N from 1)")
        return cls(fsync=bool(match[1] or match[2]), replicas=int(match[3] or 0))

    def __str__(self) -> str:
        parts = ["fsync"] * self.fsync + [f"replicated:{self.replicas}"] * bool(self.replicas)
        return "+".join(parts) or "memory"

    @property
    def by_reply(self) -> bool:
        """Whether the reply to a message is all there is to wait for."""
        return not self.fsync and not self.replicas


#: Redis's own reply, and nothing more.
MEMORY: Final = Durability()
