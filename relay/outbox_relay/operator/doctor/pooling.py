"""Whether a pooler in between lends the server's session to others between transactions.

The relay prepares statements and sets its session up; in transaction mode both are somebody else's
a moment later. Nothing tells a client which mode it is, so two connections are watched: if they
share a server process while both are open, it is lent by the transaction.
"""

from typing import Final

from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.operator.doctor.context import Context
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings

NAME: Final = "connection pooling"
PID: Final = "SELECT pg_backend_pid()"


def check(context: Context) -> list[Finding]:
    """Direct, pooled by session, or pooled by transaction."""
    session = context.session
    pid = session.value(PID)
    # A pooler cannot know which process it will lend, and makes a number up.
    if session.connection.info.backend_pid == pid:
        return [ok(NAME, "the connection is direct")]
    if _lent_by_transaction(session, context.settings, pid):
        return [
            problem(
                NAME,
                "a pooler (pgbouncer?) in transaction mode is in between: session settings and "
                "prepared statements of the relay are lost or leak to others",
                "give the relay a direct URL, or an entry of the pooler with pool_mode = session; "
                "producers may stay on the pooler",
            )
        ]
    return [
        warn(
            NAME,
            "a pooler is in between, in session mode as far as can be seen",
            "a direct URL saves a hop; keep pool_mode = session for the relay",
        )
    ]


def _lent_by_transaction(session: Session, settings: Settings, pid: int) -> bool:
    with Session.open(settings) as other, other.transaction():
        taken = other.value(PID)
        return bool(taken == pid or session.value(PID) != pid)
