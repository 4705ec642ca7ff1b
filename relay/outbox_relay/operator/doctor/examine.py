"""Every check in turn.

What cannot be reached is a finding like any other, and stops only the checks that build on it.
"""

from collections.abc import Sequence
from typing import Final

from outbox_relay.core.finding import Finding, Level, ok, problem, warn
from outbox_relay.core.route import Route
from outbox_relay.errors import RelayError, SchemaError, StoreLost
from outbox_relay.operator.doctor import (
    activity,
    backlog,
    broker,
    holds,
    integrity,
    missing,
    pooling,
    privileges,
    relays,
    schema,
    standbys,
    storage,
    version,
    workers,
)
from outbox_relay.operator.doctor.causes import DATABASE, remedy
from outbox_relay.operator.doctor.context import Check, Context
from outbox_relay.operator.routes import sample
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings

NAME: Final = "database"
#: Of the database, whatever is in it.
ANYWHERE: Final[Sequence[Check]] = (
    version.check,
    pooling.check,
    activity.check_clock,
    activity.check_transactions,
    standbys.check,
)
#: Without these, nothing more can be asked: the first that finds a problem ends the examination.
NEEDED: Final[Sequence[Check]] = (schema.check, privileges.check)
#: Of the outbox.
INSIDE: Final[Sequence[Check]] = (
    schema.check_writable,
    storage.check,
    integrity.check,
    backlog.check,
    holds.check,
    workers.check,
    missing.check,
    relays.check,
)


def examine(settings: Settings) -> list[Finding]:
    """Everything that was found, in the order of the checks."""
    of_database, routes = examine_database(settings)
    found = [ok("settings", "every variable is understood"), *of_database]
    return [*found, *broker.check(settings, routes)]


def examine_database(settings: Settings) -> tuple[list[Finding], list[Route] | None]:
    """Findings on the database, and where its messages go; None where it could not be asked."""
    try:
        session = Session.open(settings)
    except StoreLost as error:
        advice = remedy(DATABASE, str(error), "OUTBOX_DATABASE_URL")
        return [problem(NAME, str(error), advice)], None
    found: list[Finding] = []
    context = Context(session, settings)
    with session:
        info = session.connection.info
        found.append(ok(NAME, f"{info.dbname} at {info.host}:{info.port} as {info.user}"))
        try:
            for check in (*ANYWHERE, *NEEDED):
                findings = check(context)
                found += findings
                if check in NEEDED and any(f.level is Level.PROBLEM for f in findings):
                    return found, None
            for check in INSIDE:
                found += check(context)
            return found, sample(session)
        except (StoreLost, SchemaError) as error:
            found.append(_interrupted(error))
            return found, None


def _interrupted(error: RelayError) -> Finding:
    level = problem if isinstance(error, SchemaError) else warn
    return level(NAME, f"not everything was checked: {error}", "fix that and ask again")
