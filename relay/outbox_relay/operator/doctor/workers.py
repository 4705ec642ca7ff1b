"""Whether live workers know the tasks that wait for them, as far as they say."""

from typing import Final

from outbox_relay.core.finding import Finding, ok, problem
from outbox_relay.errors import StoreLost
from outbox_relay.operator import unknown
from outbox_relay.operator.doctor.causes import DATABASE, remedy
from outbox_relay.operator.doctor.context import Context
from outbox_relay.operator.inbox import inbox_of
from outbox_relay.operator.session import Session
from outbox_relay.operator.text import printable
from outbox_relay.operator.unknown import UnknownTask
from outbox_relay.settings.table import INBOX_URL

NAME: Final = "workers"
#: The most tasks that are named in one finding.
MAX_SHOWN: Final = 5


def check(context: Context) -> list[Finding]:
    """Who is alive, and which tasks none of them knows."""
    try:
        with inbox_of(context.session, context.settings) as inbox:
            return [_check(context, inbox)]
    except StoreLost as error:
        if not context.settings.inbox_url.read():
            raise
        return [problem(NAME, f"the inbox: {error}", remedy(DATABASE, str(error), INBOX_URL.name))]


def _check(context: Context, inbox: Session) -> Finding:
    alive = unknown.alive(inbox)
    if alive is None:
        return ok(
            NAME,
            "not known: no inbox.worker that this login may read; an inbox in another "
            "database is found by OUTBOX_INBOX_URL",
        )
    if not alive:
        return ok(NAME, "none says which tasks it knows (celery_inbox.announce)")
    found = unknown.read(context.session, inbox)
    return judge(alive, found, held=context.settings.hold_unknown)


def judge(alive: int, found: list[UnknownTask], *, held: bool) -> Finding:
    """Tasks that would be put aside, or wait."""
    if not found:
        return ok(NAME, f"{alive:,} alive; those of each queue know the tasks that wait for it")
    named = "; ".join(
        f"{each.messages:,} x {printable(each.task)} for queue {printable(each.queue)!r}"
        for each in found[:MAX_SHOWN]
    )
    more = f", and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
    fate = "they wait" if held else "they are sent all the same, and a worker refuses them"
    return problem(
        NAME,
        f"{alive:,} alive, and none knows: {named}{more}: {fate}",
        "deploy workers of that queue that know them, or outbox-relay discard them"
        + ("" if held else "; to have them wait: OUTBOX_HOLD_UNKNOWN=1"),
    )
