"""Asks Redis how durably it has stored what was written, and reads the answer."""

from outbox_relay.broker.redis import resp
from outbox_relay.broker.redis.durability import VARIABLE, Durability


def question(durability: Durability, patience: float) -> bytes:
    """The command that waits, `patience` seconds, for all this connection wrote so far."""
    milliseconds = b"%d" % max(1, int(patience * 1000))
    replicas = b"%d" % durability.replicas
    if durability.fsync:
        return resp.command(b"WAITAOF", b"1", replicas, milliseconds)
    return resp.command(b"WAIT", replicas, milliseconds)


def shortfall(durability: Durability, answer: object) -> str | None:
    """What the answer lacks, in words; None where it proves the level."""
    numbers = answer if isinstance(answer, list) else [1, answer]
    local, replicas = map(int, numbers)
    if durability.fsync and local < 1:
        return f"{VARIABLE}={durability}: the append-only file has not reached the disk"
    if replicas < durability.replicas:
        return (
            f"{VARIABLE}={durability}: only {replicas} of {durability.replicas} replicas "
            "have confirmed"
        )
    return None
