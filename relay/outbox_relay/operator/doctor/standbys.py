"""What a fail-over of the database would do: its standbys, and the fence that goes by them."""

from dataclasses import dataclass
from typing import Final

from outbox_relay.core.claim import Standbys
from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.operator.doctor.context import Context
from outbox_relay.postgres.standbys import STANDBYS, WITHOUT_RIGHT, lacking

NAME: Final = "standbys"
#: Of those that copy the log, for how many a commit waits. Most logins are told of none.
KINDS: Final = """
SELECT count(*) FILTER (WHERE sync_state IN ('async', 'potential')) AS asynchronous,
       count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) AS synchronous
FROM pg_stat_get_wal_senders() WHERE replay_lsn IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Kinds:
    """How many standbys there are of each kind."""

    asynchronous: int
    synchronous: int


def check(context: Context) -> list[Finding]:
    """Whether the fence lets anything through; without one, whether there should be one."""
    session, wanted = context.session, context.settings.fence
    if not wanted:
        [kinds] = session.fetch(Kinds, KINDS)
        return judge_without_fence(kinds)
    if login := session.value(WITHOUT_RIGHT.text):
        return [problem(NAME, lacking(login), "no relay starts with OUTBOX_FENCE before")]
    [told] = session.fetch(Standbys, STANDBYS.text, standbys=wanted)
    return [judge_fence(wanted, told)]


def judge_without_fence(kinds: Kinds) -> list[Finding]:
    """A warning where a fail-over may lose what a relay has published."""
    if not kinds.asynchronous or kinds.synchronous:
        return []
    return [
        warn(
            NAME,
            f"no commit waits for the {kinds.asynchronous} standby(s): a fail-over loses the last "
            "commits, whose messages may have been published",
            "set OUTBOX_FENCE=standby:1, or synchronous_standby_names",
        )
    ]


def judge_fence(wanted: int, told: Standbys) -> Finding:
    """A problem where nothing can be published."""
    if told.connected < wanted:
        return problem(
            NAME,
            f"OUTBOX_FENCE=standby:{wanted}, and {told.connected} standby(s) are connected: "
            "nothing is published",
            "bring the standbys back, or restart the relays with a fence of fewer, or off",
        )
    behind = max(0, told.written - told.flushed)
    return ok(NAME, f"{told.connected} connected, {wanted} of them {behind} bytes behind at most")
