"""Which queues lose messages after confirming them. Pure: from what is known of a queue."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from outbox_relay.core.finding import Finding, problem, warn
from outbox_relay.settings.durations import how_long

NAME: Final = "queue"
COPYING: Final = "reject-publish-dlx"
REFUSING: Final = ("reject-publish", COPYING)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as declared, and the policy on it, where that could be read."""

    name: str
    durable: bool = True
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    readable: bool = True

    def setting(self, key: str) -> tuple[Any, str] | None:
        """A setting and where it comes from; of two limits the lower one counts."""
        found = [
            (source[name], origin)
            for source, name, origin in (
                (self.arguments, f"x-{key}", f"argument x-{key}"),
                (self.policy, key, f"policy {key}"),
            )
            if source.get(name) is not None
        ]
        return min(found, key=lambda each: str(each[0]).zfill(20)) if found else None


def judge(queue: Queue) -> list[Finding]:
    """Everything about the queue that can lose a confirmed message."""
    findings = [*_limits(queue), *_copies(queue), *_times(queue), *_lifetimes(queue)]
    if not queue.readable:
        findings.append(
            warn(
                NAME,
                f"the limits of queue {queue.name!r} could not be read",
                "let this user configure it, or make the management API reachable "
                "(--management-url), and ask again",
            )
        )
    return findings


def _limits(queue: Queue) -> list[Finding]:
    overflow = queue.setting("overflow")
    if overflow and overflow[0] in REFUSING:
        return []
    return [
        problem(
            NAME,
            f"queue {queue.name!r} drops its oldest messages beyond {found[0]} {unit} "
            f"({found[1]}, overflow drop-head), after they were confirmed",
            f"overflow: reject-publish makes it refuse instead, and the outbox keeps them: "
            f"{_fix(queue, found[1], 'overflow', 'reject-publish')}",
        )
        for key, unit in (("max-length", "messages"), ("max-length-bytes", "bytes"))
        if (found := queue.setting(key))
    ]


def _copies(queue: Queue) -> list[Finding]:
    """What it refuses is sent again; what it has laid aside of that looks as if it were lost."""
    overflow = queue.setting("overflow")
    if not overflow or overflow[0] != COPYING or not queue.setting("dead-letter-exchange"):
        return []
    return [
        warn(
            NAME,
            f"queue {queue.name!r} leaves a copy among its dead letters of whatever it refuses "
            f"({overflow[1]} {COPYING}): the outbox sends that again, and where the copy comes "
            "home, calls it dead although it was sent",
            f"use reject-publish: {_remove(queue, overflow[1])}",
        )
    ]


def _times(queue: Queue) -> list[Finding]:
    found = queue.setting("message-ttl")
    if not found:
        return []
    life = how_long(float(found[0]) / 1000)
    if queue.setting("dead-letter-exchange"):
        return [
            warn(
                NAME,
                f"queue {queue.name!r} moves messages to its dead-letter exchange after {life} "
                f"({found[1]})",
                "watch the queue behind that exchange, or remove the limit",
            )
        ]
    return [
        problem(
            NAME,
            f"queue {queue.name!r} drops messages that no worker took within {life} ({found[1]})",
            f"remove the TTL, or give the queue a dead-letter exchange: {_remove(queue, found[1])}",
        )
    ]


def _lifetimes(queue: Queue) -> list[Finding]:
    findings = []
    if expires := queue.setting("expires"):
        findings.append(
            problem(
                NAME,
                f"queue {queue.name!r} is deleted with its messages when unused for "
                f"{how_long(float(expires[0]) / 1000)} ({expires[1]})",
                _remove(queue, expires[1]),
            )
        )
    if not queue.durable:
        findings.append(
            problem(
                NAME,
                f"queue {queue.name!r} is not durable: a restart of the broker loses it with its "
                "messages",
                "declare it durable (task_queues: Queue(..., durable=True)) after deleting it: "
                f"rabbitmqctl delete_queue {queue.name}",
            )
        )
    if queue.auto_delete:
        findings.append(
            problem(
                NAME,
                f"queue {queue.name!r} is deleted with its messages when its last worker leaves "
                "(auto_delete)",
                f"declare it with auto_delete=False: rabbitmqctl delete_queue {queue.name}",
            )
        )
    return findings


def _fix(queue: Queue, origin: str, key: str, value: str) -> str:
    if origin.startswith("policy"):
        return f"add {key}={value} to its policy (rabbitmqctl list_policies)"
    return (
        f'rabbitmqctl set_policy safe "^{queue.name}$" \'{{"{key}": "{value}"}}\' --apply-to queues'
    )


def _remove(queue: Queue, origin: str) -> str:
    if origin.startswith("policy"):
        return "change its policy (rabbitmqctl list_policies)"
    return f"once {queue.name!r} is empty, delete it and declare it without the {origin}"
