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

from outbox_relay.redis import resp

VARIABLE: Final = "OUTBOX_REDIS_CONFIRM"


@dataclass(frozen=True, slots=True)
class Durability:
    """A level, the question that asks for it, and what its answer means."""

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

    def question(self, patience: float) -> bytes:
        """The command that waits, `patience` seconds, for all this connection wrote so far."""
        milliseconds = b"%d" % max(1, int(patience * 1000))
        replicas = b"%d" % self.replicas
        if self.fsync:
            return resp.command(b"WAITAOF", b"1", replicas, milliseconds)
        return resp.command(b"WAIT", replicas, milliseconds)

    def shortfall(self, answer: object) -> str | None:
        """What the answer lacks, in words; None where it proves the level."""
        numbers = answer if isinstance(answer, list) else [1, answer]
        local, replicas = map(int, numbers)
        if self.fsync and local < 1:
            return f"{VARIABLE}={self}: the append-only file has not reached the disk"
        if replicas < self.replicas:
            return f"{VARIABLE}={self}: only {replicas} of {self.replicas} replicas have confirmed"
        return None


#: Redis's own reply, and nothing more.
MEMORY: Final = Durability()
