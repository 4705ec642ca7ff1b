"""The first commands on a publishing connection: whether it may write, and how durably.

They also ask what became of the batches that were in flight when an earlier connection was lost.
"""

from time import monotonic
from typing import Final

import structlog
from hiredis import ReplyError

from outbox_relay.broker.link import Link
from outbox_relay.broker.redis import resp
from outbox_relay.broker.redis.connect import CONNECT_TIMEOUT
from outbox_relay.broker.redis.durability import VARIABLE, Durability
from outbox_relay.broker.redis.in_doubt import InDoubt, mark
from outbox_relay.broker.redis.pipeline import Pipeline
from outbox_relay.broker.redis.proof import question, shortfall
from outbox_relay.broker.redis.verdict import LOST, PAUSE
from outbox_relay.errors import BrokerLost, SettingsError

log = structlog.get_logger()

#: What a user of the server needs to be allowed.
PERMISSIONS: Final = (
    "multi, exec, lpush, publish, sadd, srem, smembers, expire, type, llen; keys outbox-relay.*"
)
#: Seconds the server may take for the first proof; some write their file once a second.
PROOF_SECONDS: Final = 3.0


def handshake(link: Link, marker: bytes, durability: Durability, in_doubt: InDoubt) -> str | None:
    """Write the marker, prove the level, learn what was in doubt; why we have to pause, if so.

    Raises BrokerLost, or SettingsError where the server can never do what is asked of it.
    """
    doubts = in_doubt.questions()
    # Without doubts too, so that a right is missed at the start, and not after an outage.
    questions = doubts or [resp.command(b"SMEMBERS", marker), resp.command(b"TYPE", marker)]
    written = [resp.MULTI, *mark(marker, 0, ()), resp.EXEC]
    proof = [] if durability.by_reply else [question(durability, PROOF_SECONDS)]
    replies = _round_trip(link, [*questions, *written, *proof])
    told, answers = replies[: len(questions)], replies[len(questions) :]
    pause = _check_write(answers[: len(written)], durability)
    if not durability.by_reply:
        _check_proof(answers[-1], durability)
    _check_told(told)
    # Only now: what the marker says is as durable as everything written before that proof.
    if doubts:
        log.info("doubts_settled", arrived=in_doubt.answered(told, monotonic()))
    return pause


def _check_write(replies: list[object], durability: Durability) -> str | None:
    error = next((reply for reply in replies if isinstance(reply, ReplyError)), None)
    if error is None:
        return None
    if durability.by_reply and resp.code(error) in PAUSE:
        return str(error)
    raise BrokerLost(f"the server takes no writes from us: {error}{_needed(error)}")


def _check_told(replies: list[object]) -> None:
    """What is not told now may be later: without it, messages would be published twice."""
    for reply in replies:
        if isinstance(reply, ReplyError) and resp.code(reply) != "WRONGTYPE":
            raise BrokerLost(f"the server does not tell what it has: {reply}{_needed(reply)}")


def _needed(error: object) -> str:
    return f" (needed: {PERMISSIONS})" if resp.code(error) == "NOPERM" else ""


def _check_proof(answer: object, durability: Durability) -> None:
    if isinstance(answer, ReplyError):
        if resp.code(answer) in LOST:
            raise BrokerLost(str(answer))
        raise SettingsError(f"{VARIABLE}={durability} is more than this server can do: {answer}")
    if short := shortfall(durability, answer):
        raise BrokerLost(short)


def _round_trip(link: Link, commands: list[bytes]) -> list[object]:
    """Ask, and wait for all the replies."""
    pipeline: Pipeline[None] = Pipeline()
    now = monotonic()
    deadline = now + CONNECT_TIMEOUT
    pipeline.asked(None, len(commands), now)
    link.send(b"".join(commands))
    while (left := deadline - monotonic()) > 0:
        for _, replies in pipeline.feed(link.pump(left)):
            return replies
    raise BrokerLost(f"the server has said nothing for {CONNECT_TIMEOUT:.0f} s")
