"""`doctor` of many outboxes: every check of each database and schema, and of each broker once.

What was found of several outboxes alike is one finding, with their names.
"""

from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.core.route import Route
from outbox_relay.errors import RelayError
from outbox_relay.many import alike
from outbox_relay.many.databases import AT_ONCE, grouped
from outbox_relay.many.outbox import Outbox
from outbox_relay.many.roster import Reading
from outbox_relay.operator.doctor import broker
from outbox_relay.operator.doctor.examine import examine_database

#: Of this many distinct routes of a broker, as many as of one outbox, each is checked.
MAX_ROUTES: Final = 200

Routes = list[Route] | None


@dataclass(frozen=True, slots=True)
class Shared:
    """A finding, and the outboxes it is about; none if it is about them all."""

    finding: Finding
    outboxes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Examined:
    outbox: Outbox
    findings: list[Finding]
    routes: Routes


def examine_all(reading: Reading) -> list[Shared]:
    """Everything that was found, in the order of the checks."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        groups = pool.map(
            lambda group: [_examine(each) for each in group], grouped(reading.outboxes)
        )
        examined = [each for group in groups for each in group]
        brokers = list(pool.map(_check_broker, _by_broker(examined)))
    found = [Shared(ok("settings", f"every line is understood: {len(reading.outboxes)} outboxes"))]
    found += [
        Shared(warn("outboxes", each, "until then what was known before counts, or nothing"))
        for each in reading.trouble
    ]
    found += _shared((finding, e.outbox.name) for e in examined for finding in e.findings)
    return [*found, *(shared for of_one in brokers for shared in of_one)]


def _examine(outbox: Outbox) -> _Examined:
    """What its database shows, and where its messages go."""
    try:
        return _Examined(outbox, *examine_database(outbox.settings))
    except RelayError as error:  # a secret that was replaced by none
        return _Examined(outbox, [problem("database", str(error), "correct it")], None)


def _by_broker(examined: Sequence[_Examined]) -> list[list[_Examined]]:
    """Those that publish to one broker, and have it checked alike."""
    groups: dict[Hashable, list[_Examined]] = {}
    for each in examined:
        groups.setdefault(alike.for_check(each.outbox.settings), []).append(each)
    return list(groups.values())


def _check_broker(examined: Sequence[_Examined]) -> list[Shared]:
    """What is found of the broker of all these."""
    names = tuple(each.outbox.name for each in examined)
    known = [each.routes for each in examined if each.routes is not None]
    routes = _joined(route for of_one in known for route in of_one) if known else None
    findings = broker.check(examined[0].outbox.settings, routes)
    return [Shared(finding, names) for finding in findings]


def _joined(routes: Iterable[Route]) -> list[Route]:
    """Each once, with all that is to go there; those with most first."""
    joined: dict[Route, int] = {}
    for route in routes:
        key = replace(route, unsent=0)
        joined[key] = joined.get(key, 0) + route.unsent
    most = sorted(joined, key=lambda route: -joined[route])[:MAX_ROUTES]
    return [replace(route, unsent=joined[route]) for route in most]


def _shared(found: Iterable[tuple[Finding, str]]) -> list[Shared]:
    """Each finding once, with the names of all it is about."""
    names: dict[Finding, list[str]] = {}
    for finding, name in found:
        names.setdefault(finding, []).append(name)
    return [Shared(finding, tuple(each)) for finding, each in names.items()]
