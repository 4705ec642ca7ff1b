"""How full a Redis is, as INFO has it: where that bounds anything, and what doctor says of it."""

from typing import Any

import pytest

from outbox_relay.broker.redis.check import judge_room
from outbox_relay.broker.redis.sounder import used_of
from outbox_relay.core.finding import Level
from outbox_relay.core.memory import Used

MB = 1 << 20


def info(used: int, most: int, policy: str = "noeviction") -> dict[str, Any]:
    """What a server answers."""
    return {"used_memory": used * MB, "maxmemory": most * MB, "maxmemory_policy": policy}


@pytest.mark.parametrize(
    ("answer", "used"),
    [
        (info(40, 64), Used(40 * MB, 64 * MB)),
        (info(40, 0), Used(40 * MB, 0)),
        (info(40, 64, "allkeys-lru"), Used()),
        (info(40, 64, "volatile-ttl"), Used()),
    ],
)
def test_only_a_server_that_refuses_is_kept_free(answer: dict[str, Any], used: Used) -> None:
    """One without a limit is never full, and one that forgets other keys is meant to be."""
    assert used_of(answer) == used


def test_what_a_server_does_not_count_does_not_fill_it() -> None:
    """Buffers for slow replicas and for the append-only file: it takes messages all the same."""
    answer = {**info(70, 64), "mem_not_counted_for_evict": 30 * MB}

    assert used_of(answer) == Used(40 * MB, 64 * MB)


def test_a_server_that_does_not_tell_says_nothing() -> None:
    """As of a provider that leaves it out."""
    assert used_of({"used_memory": 5}) == Used(why="INFO memory tells no maxmemory")


@pytest.mark.parametrize(
    ("used", "share", "level", "words"),
    [
        (Used(), 0.7, Level.OK, "no maxmemory that refuses writes"),
        (Used(why="INFO memory: forbidden"), 0.7, Level.OK, "forbidden"),
        (Used(40 * MB, 64 * MB), 0.7, Level.OK, "62%"),
        (Used(50 * MB, 64 * MB), 0.7, Level.WARN, "queues are kept short"),
        (Used(50 * MB, 64 * MB), None, Level.OK, "78%"),
        (Used(60 * MB, 64 * MB), None, Level.WARN, "94%"),
    ],
)
def test_doctor_warns_before_it_is_full(
    used: Used, share: float | None, level: Level, words: str
) -> None:
    """From the share on, beyond which messages wait; without one, near the end."""
    [found] = judge_room(used, share)

    assert found.level is level
    assert words in found.text
