"""Redis and Valkey: whether the server keeps what it has accepted."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from redis.exceptions import RedisError

from outbox_relay.broker.redis import depth
from outbox_relay.broker.redis.connect import open_server
from outbox_relay.broker.redis.settings import MAX_MEMORY
from outbox_relay.broker.redis.sounder import used_of
from outbox_relay.core import versions
from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.core.memory import Used
from outbox_relay.core.route import Route
from outbox_relay.errors import BrokerLost
from outbox_relay.settings import Settings
from outbox_relay.settings.values import transport_options

NAME: Final = "broker"
#: How kombu remembers what is bound to an exchange.
BINDINGS: Final = "_kombu.binding.{exchange}"
FULL: Final = 0.9
MEMORY: Final = "Redis memory"


def check(url: str, settings: Settings, routes: Sequence[Route]) -> list[Finding]:
    """Everything about one server. Raises BrokerLost where it cannot be reached."""
    with closing(
        open_server(url, transport_options(settings.broker_transport_options.read()))
    ) as server:
        client: Any = server.channel.client
        try:
            info: Mapping[str, Any] = client.info()
            findings = [_seen(info), _version(info), *judge_memory(info), *judge_persistence(info)]
            findings += judge_room(used_of(info), settings.of(MAX_MEMORY))
            findings += _fsync(client) if info.get("aof_enabled") else []
            findings += [f for route in routes for f in _route(client, route, settings)]
            queues = dict.fromkeys(name for route in routes for name in route.queues)
            return findings + depth.check(server.channel, list(queues))
        except (OSError, RedisError) as error:
            raise BrokerLost(f"the broker did not answer: {error}") from error


def _named(info: Mapping[str, Any]) -> tuple[str, str]:
    """What the server is, and its version."""
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    return name, str(info.get("valkey_version") or info.get("redis_version"))


def _version(info: Mapping[str, Any]) -> Finding:
    return versions.redis(*_named(info))


def _seen(info: Mapping[str, Any]) -> Finding:
    name, version = _named(info)
    if info.get("role") == "slave":
        return problem(
            NAME,
            f"{name} {version} is a replica: it takes no writes, or loses them",
            "point OUTBOX_BROKER_URL to the primary, or use sentinel://",
        )
    return ok(NAME, f"{name} {version} answers")


def judge_memory(info: Mapping[str, Any]) -> list[Finding]:
    """What happens when the memory is full."""
    name, policy = "Redis eviction", str(info.get("maxmemory_policy", "noeviction"))
    limit = int(info.get("maxmemory", 0))
    findings: list[Finding] = []
    if policy.startswith("allkeys"):
        when = f"beyond {limit >> 20} MB" if limit else "once a maxmemory is set"
        level = problem if limit else warn
        findings.append(
            level(
                name,
                f"maxmemory-policy {policy} evicts whole queues {when}, after they were confirmed",
                "CONFIG SET maxmemory-policy noeviction (and in redis.conf): a full server then "
                "refuses, and the outbox keeps them",
            )
        )
    evicted = int(info.get("evicted_keys", 0))
    if evicted:
        findings.append(
            warn(name, f"{evicted:,} keys were evicted since the start", "queues may be among them")
        )
    return findings or [ok(name, f"maxmemory-policy {policy}: nothing is evicted")]


def judge_room(used: Used, share: float | None) -> list[Finding]:
    """How much memory is left, and whether messages wait in the outbox for more."""
    if not used.most:
        none = "no maxmemory that refuses writes: queues are kept short by OUTBOX_MAX_DEPTH alone"
        return [ok(MEMORY, used.why or none)]
    told = f"{used.part:.0%} of the {used.most >> 20} MB of maxmemory are used"
    if not used.beyond(min(FULL, share or 1)):
        return [ok(MEMORY, told)]
    held = share is not None and used.beyond(share)
    more = ": queues are kept short, the rest waits in the outbox" if held else ""
    advice = "start more workers, look what else is there (results: result_expires), or raise it"
    return [warn(MEMORY, told + more, advice)]


def judge_persistence(info: Mapping[str, Any]) -> list[Finding]:
    """Whether a crash of the server loses what it had."""
    name = "Redis persistence"
    if not int(info.get("aof_enabled", 0)):
        return [
            problem(
                name,
                "no append-only file (AOF): a crash of the server loses confirmed messages",
                "CONFIG SET appendonly yes (and in redis.conf)",
            )
        ]
    if str(info.get("aof_last_write_status", "ok")) != "ok":
        return [
            problem(
                name,
                "the last write of the append-only file (AOF) failed",
                "look at the server's disk: it is full, or read-only",
            )
        ]
    return [ok(name, "the append-only file (AOF) is on")]


def _fsync(client: Any) -> list[Finding]:
    name = "Redis persistence"
    try:
        fsync = client.config_get("appendfsync").get("appendfsync")
    except RedisError:
        return [ok(name, "appendfsync cannot be read here (CONFIG is forbidden)")]
    if fsync == "no":
        return [
            warn(
                name,
                "appendfsync is no: a power failure loses what the kernel had not written",
                "CONFIG SET appendfsync everysec, or always",
            )
        ]
    return []


def _route(client: Any, route: Route, settings: Settings) -> list[Finding]:
    """On Redis a queue comes into being with its first message; only bindings can be missing."""
    declared = settings.declare == "missing" and route.declared_queues
    if not route.exchange or declared or client.exists(BINDINGS.format(exchange=route.exchange)):
        return []
    return [
        (problem if route.mandatory else warn)(
            "route",
            f"no binding: nothing is bound to exchange {route.exchange!r}; "
            f"{route.unsent} unsent message(s) of the sample go there",
            "start a worker whose task_queues bind to it, or correct the task's exchange",
        )
    ]
