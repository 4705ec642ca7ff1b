"""RabbitMQ: whether every route of the sample leads to a queue, and one that keeps messages."""

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import date
from typing import Final

from kombu.utils.url import parse_url

from outbox_relay.broker.amqp.check import bindings, deprecated, fan_out, size
from outbox_relay.broker.amqp.check.management import Management, Unavailable
from outbox_relay.broker.amqp.check.probe import Probe
from outbox_relay.broker.amqp.check.queues import Queue, judge
from outbox_relay.broker.amqp.passive import Unanswered
from outbox_relay.broker.amqp.settings import MANAGEMENT_URL
from outbox_relay.core import depth, versions
from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.core.route import Route
from outbox_relay.settings import Settings

NAME: Final = "broker"
ROUTE: Final = "route"


def check(url: str, settings: Settings, routes: Sequence[Route]) -> list[Finding]:
    """Everything about one broker. Raises BrokerLost where it cannot be reached."""
    parts = parse_url(url)
    where = f"{parts['hostname']}:{parts['port'] or 5672}, virtual host {parts['virtual_host']!r}"
    with closing(Probe(url)) as probe:
        probe.may_open_channel()
        findings = [ok(NAME, f"RabbitMQ at {where}")]
        findings += versions.rabbitmq(probe.version, date.today())
        findings += size.check(url)
        management = Management.of(url, settings.of(MANAGEMENT_URL))
        try:
            findings += _alarms(management)
            api: Management | None = management
        except Unavailable as error:
            api = None
            findings.append(
                warn(
                    "management API",
                    f"{error}: policies, bindings and alarms were not checked",
                    "give --management-url (OUTBOX_MANAGEMENT_URL), or enable rabbitmq_management "
                    "and give the user the tag monitoring",
                )
            )
        if api:
            findings += deprecated.check(api)
        findings += _Routes(probe, api, declare=settings.declare == "missing").check(routes)
    return findings


def _alarms(management: Management) -> list[Finding]:
    if alarms := management.alarms():
        return [
            problem(
                NAME,
                f"the broker has an alarm and accepts nothing: {', '.join(alarms)}",
                "free memory or disk on these nodes, or let workers empty the queues; the relay "
                "goes on by itself",
            )
        ]
    return []


class _Routes:
    """Checks the routes of the sample one by one; each queue and exchange once."""

    def __init__(self, probe: Probe, api: Management | None, *, declare: bool) -> None:
        self._probe = probe
        self._api = api
        self._declare = declare

    def check(self, routes: Sequence[Route]) -> list[Finding]:
        """Findings on where messages go, and on the queues they reach."""
        findings: list[Finding] = []
        consumers: list[Finding] = []
        queues: dict[str, None] = {}
        for route in routes:
            if route.exchange:
                findings += self._exchange(route)
                findings += self._fan_out(route)
                queues.update(dict.fromkeys(route.declared_queues))
            else:
                queues[route.routing_key] = None
        by_queue = {r.routing_key: r for r in reversed(routes) if not r.exchange}
        for name in queues:
            try:
                findings += self._queue(name, by_queue.get(name))
                consumers += self._consumers(name, routes)
            except Unanswered:
                findings.append(_hanging(name))
        if not routes:
            return []
        safe = ok(
            ROUTE, f"{len(routes)} checked: every message finds a safe queue, or has one declared"
        )
        return [*(findings or [safe]), *consumers]

    def _consumers(self, name: str, routes: Sequence[Route]) -> list[Finding]:
        if found := self._probe.depth(name):
            return [depth.judge(found)]
        if self._declare and any(route.declares_queue(name) for route in routes):
            return [] if self._probe.queue(name) else [depth.judge_missing(name)]
        return []

    def _queue(self, name: str, route: Route | None) -> list[Finding]:
        queue = self._probe.queue(name)
        if queue is None:
            if route is None or (self._declare and route.declares_queue(name)):
                return []  # the relay will declare it
            never = " (OUTBOX_DECLARE=never)" if not self._declare else ""
            return [
                problem(
                    ROUTE,
                    f"queue {name!r} does not exist{never}; {_waiting(route)}",
                    "start a worker that consumes it (it declares it), or declare it, or correct "
                    "the task's queue; what was refused is tried again, what is dead wants: "
                    "outbox-relay retry",
                )
            ]
        if self._api:
            try:
                queue = replace(queue, policy=self._api.queue_policy(name))
            except Unavailable as error:
                return [*judge(queue), _unchecked(f"the policy of queue {name!r}", error)]
        return judge(queue)

    def _fan_out(self, route: Route) -> list[Finding]:
        """On queues that get the same messages, as far as they are known."""
        names = set(route.declared_queues)
        queues: list[Queue] = []
        with suppress(Unavailable):  # said already, where it matters more
            if self._api:
                kind = self._api.exchange_type(route.exchange)
                names |= {
                    queue
                    for key, queue in self._api.bound_queues(route.exchange)
                    if bindings.routes(kind, [key], route.routing_key)
                }
        for name in sorted(names) if len(names) > 1 else ():
            with suppress(Unanswered):  # it is told with the other queues
                if queue := self._probe.queue(name):
                    with suppress(Unavailable):
                        policy = self._api.queue_policy(name) if self._api else {}
                        queue = replace(queue, policy=policy)
                    queues.append(queue)
        return fan_out.judge(route.exchange, route.routing_key, queues)

    def _exchange(self, route: Route) -> Iterator[Finding]:
        declared = self._declare and route.declares_exchange
        exists = self._probe.exchange_exists(route.exchange)
        if exists is False and not declared:
            yield problem(
                ROUTE,
                f"exchange {route.exchange!r} does not exist; {_waiting(route)}",
                "declare it, or start the worker that does, or correct the task's exchange",
            )
        if exists and not (self._declare and route.declared_queues):
            yield from self._binding(route)

    def _binding(self, route: Route) -> Iterator[Finding]:
        what = f"exchange {route.exchange!r} with routing key {route.routing_key!r}"
        if self._api is None:
            yield warn(
                ROUTE,
                f"whether {what} reaches a queue could not be checked",
                "make the management API reachable (--management-url), or list: "
                "rabbitmqctl list_bindings",
            )
            return
        try:
            kind = self._api.exchange_type(route.exchange)
            keys = self._api.binding_keys(route.exchange)
        except Unavailable as error:
            yield _unchecked(f"the bindings of exchange {route.exchange!r}", error)
            return
        if not bindings.routes(kind, keys, route.routing_key):
            yield (problem if route.mandatory else warn)(
                ROUTE,
                f"no binding: {what} ({kind}) reaches no queue; {_waiting(route)}",
                "bind a queue to it (a worker with that queue in task_queues does), or correct "
                "the routing key",
            )


def _waiting(route: Route) -> str:
    if route.unsent:
        return f"{route.unsent} unsent message(s) of the sample go there"
    return "messages went there lately"


def _hanging(name: str) -> Finding:
    return problem(
        ROUTE,
        f"queue {name!r} gives no answer: its process hangs, or its node does; the others answer",
        f"rabbitmqctl list_unresponsive_queues tells of such queues; if {name!r} does not recover, "
        "restart the node that has it; its messages wait in the outbox meanwhile",
    )


def _unchecked(what: str, error: Unavailable) -> Finding:
    return warn(ROUTE, f"{what} could not be checked: {error}", "see the management API")
