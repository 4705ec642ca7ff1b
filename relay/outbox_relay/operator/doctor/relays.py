"""Whether the relays there are agree: on the broker, on the settings, and with these settings.

Relays share the work: which of them takes a message is chance. If they are not set alike, chance
decides to which broker it goes, or whether it is dead.
"""

from collections.abc import Sequence
from typing import Final

from outbox_relay.core.finding import Finding, warn
from outbox_relay.operator.doctor.context import Context
from outbox_relay.operator.identity import Identity
from outbox_relay.operator.status import RELAYS, RelaySeen

NAME: Final = "relays"
ALIKE: Final = (
    "give all relays of this outbox the same settings, and restart those that have others"
)


def check(context: Context) -> list[Finding]:
    """What they do not agree on."""
    here = Identity.of(context.settings)
    relays = context.session.fetch(RelaySeen, RELAYS)
    return judge(relays, here, knows_broker=bool(context.settings.broker_url.read()))


def judge(relays: Sequence[RelaySeen], here: Identity, *, knows_broker: bool) -> list[Finding]:
    """A warning for each difference: during a roll-out it may be meant."""
    seen = [(relay.pid, named) for relay in relays if (named := Identity.parse(relay.name))]
    seen = [(pid, each) for pid, each in seen if each.schema == here.schema]
    if not seen:
        return []
    first, found = seen[0][1], []
    if len({each.version for _, each in seen}) > 1:
        shown = ", ".join(f"{each.version} (pid {pid})" for pid, each in seen)
        found.append(warn(NAME, f"their versions differ: {shown}", "finish the roll-out"))
    if len({each.broker for _, each in seen}) > 1:
        found.append(
            warn(
                NAME,
                "they do not publish to the same place: OUTBOX_BROKER_URL, or what addresses in "
                f"OUTBOX_BROKER_TRANSPORT_OPTIONS, differs{_groups(seen)}",
                f"if these are not nodes of one cluster, {ALIKE}",
            )
        )
    elif knows_broker and first.broker != here.broker:
        found.append(
            warn(
                NAME,
                "they publish to another place than the broker that is examined here",
                "run doctor with the relays' OUTBOX_BROKER_URL and OUTBOX_BROKER_TRANSPORT_OPTIONS",
            )
        )
    alike = [each for _, each in seen if each.version == here.version]
    differing = sorted({name for each in alike for name in alike[0].differences(each)})
    if differing:
        found.append(warn(NAME, f"they are not set alike: {', '.join(differing)} differ(s)", ALIKE))
    return found


def _groups(seen: Sequence[tuple[int, Identity]]) -> str:
    """Which of them publish together."""
    places = dict.fromkeys(each.broker for _, each in seen)
    groups = (
        "pid " + ", ".join(str(pid) for pid, each in seen if each.broker == place)
        for place in places
    )
    return f" ({'; '.join(groups)})"
